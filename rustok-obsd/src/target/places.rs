//! The places of probes: as many as can be attached in a moment, each checked against the code.
//!
//! Reads: the wanted functions' code, the unwind table, and once more the symbol table. Yields: for each function a place or
//! the [`Doubt`]. Costs: one pass over the symbols, a decode of each wanted function.
//!
//! A function begins at an address if its symbol says so, the code from there on decodes up to the symbol's end exactly, no
//! other function of the table begins within one of its instructions or has it within one of its own, and the unwind table,
//! where it knows the place, has a beginning there. The first three are asked of every binary; the last one is silent for
//! code without unwind information.

use std::collections::BTreeMap;

use super::code::Body;
use super::elf::{Elf, ElfError, Source};
use super::presence::{Absence, Doubt, Place, Presence, RefusedPlace};
use super::symbols::{self, Symbol};
use super::unwind::{UnwindTable, Witness};

/// Functions around one place that are decoded; real binaries have none.
const MAX_AROUND: usize = 4;

/// The functions of all probe points, by address.
#[derive(Debug, Default)]
pub(super) struct Places {
    checked: BTreeMap<u64, Checked>,
}

#[derive(Debug)]
struct Checked {
    file_offset: u64,
    code: Result<Body, Doubt>,
    around: Vec<(u64, u64)>,
}

impl Places {
    /// Reads the code of the functions in the executable.
    pub(super) fn read<'f, S: Source + ?Sized>(
        elf: &Elf<'_, S>,
        functions: impl Iterator<Item = &'f Symbol>,
    ) -> Result<Self, ElfError> {
        let mut checked = BTreeMap::new();
        let unwind = UnwindTable::find(elf);
        for symbol in functions {
            if checked.contains_key(&symbol.address) {
                continue;
            }
            elf.budget().check()?;
            let mut code = Body::read(elf, symbol.address, symbol.size);
            if let (Some(Witness::Within(start)), Ok(_)) = (unwind.map(|table| table.at(elf, symbol.address)), &code) {
                code = Err(Doubt::Unwind(start));
            }
            let file_offset = elf.file_offset(symbol.address, true);
            if file_offset.is_none() {
                code = code.and(Err(Doubt::Outside));
            }
            let file_offset = file_offset.unwrap_or_default();
            checked.insert(symbol.address, Checked { file_offset, code, around: Vec::new() });
        }
        // What ran out of budget on the way looked like code outside of the file.
        elf.budget().check()?;
        Ok(Self { checked })
    }

    /// Compares with all functions of the file that the symbols come from, and reads the code of those around a place in the
    /// executable.
    pub(super) fn compare<S, T>(&mut self, elf: &Elf<'_, S>, table: &Elf<'_, T>) -> Result<(), ElfError>
    where
        S: Source + ?Sized,
        T: Source + ?Sized,
    {
        let longest =
            self.checked.values().filter_map(|place| place.code.as_ref().ok()).map(|body| body.end - body.start);
        let longest = longest.max().unwrap_or(0);
        symbols::functions(table, |address, size| {
            // Places before the function, that may reach into it.
            for (_, place) in self.checked.range_mut(address.saturating_sub(longest)..address) {
                if place.code.as_ref().is_ok_and(|body| address < body.end && !body.begins(address)) {
                    place.code = Err(Doubt::Overlap(address));
                }
            }
            let end = address.saturating_add(size);
            if let Some(behind) = address.checked_add(1).filter(|behind| *behind < end) {
                for (_, place) in self.checked.range_mut(behind..end) {
                    if place.around.len() <= MAX_AROUND && !place.around.iter().any(|other| other.0 == address) {
                        place.around.push((address, size));
                    }
                }
            }
        })?;
        for (&address, place) in self.checked.iter_mut().filter(|(_, place)| place.code.is_ok()) {
            let within = place.around.iter().enumerate().find(|(index, (start, size))| {
                *index >= MAX_AROUND || !Body::read(elf, *start, *size).is_ok_and(|body| body.begins(address))
            });
            if let Some((_, (start, _))) = within {
                place.code = Err(Doubt::Within(*start));
            }
        }
        elf.budget().check()?;
        Ok(())
    }

    /// Whether a probe may be placed on the function.
    pub(super) fn accepts(&self, symbol: &Symbol) -> bool {
        self.checked.get(&symbol.address).is_some_and(|place| place.code.is_ok())
    }

    /// The presence of a probe point with these functions, of which there is at least one.
    pub(super) fn presence(&self, functions: &[Symbol]) -> Option<Presence> {
        let (mut places, mut refused) = (Vec::new(), Vec::new());
        for symbol in functions {
            match self.checked.get(&symbol.address) {
                Some(Checked { file_offset, code: Ok(body), around: _ }) => places.push(Place {
                    file_offset: *file_offset,
                    address: symbol.address,
                    names: symbol.names.clone(),
                    code: body.head.clone(),
                }),
                Some(Checked { code: Err(reason), .. }) => refused.push(RefusedPlace {
                    address: symbol.address,
                    name: symbol.names.first().cloned().unwrap_or_else(|| "".into()),
                    reason: reason.clone(),
                }),
                None => {}
            }
        }
        if places.is_empty() {
            let count = refused.len();
            return refused.into_iter().next().map(|first| Presence::Absent(Absence::Refused { count, first }));
        }
        Some(Presence::Found { places, refused })
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
