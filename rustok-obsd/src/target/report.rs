//! What `rustok-obsd probes --binary PATH` prints.
//!
//! Reads: a [`Binary`]. Yields: text for people. Costs: nothing worth a number.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::escape;

use super::binary::Binary;
use super::budget::Limits;
use super::executable::{BinaryError, Executable};
use super::points::{Library, ProbePoint};
use super::presence::Presence;
use super::tokio_slot::TaskSlot;

/// A binary's probe points, printable.
#[derive(Debug, Clone)]
pub struct BinaryReport {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub binary: Binary,
}

impl BinaryReport {
    /// Analyses the file.
    ///
    /// # Errors
    /// [`BinaryError`] where it cannot be opened.
    pub fn new(path: &Path) -> Result<Self, BinaryError> {
        let binary = Binary::analyse(&Executable::open(path)?, Path::new("/"), &[], Limits::default());
        Ok(Self { path: path.to_owned(), binary })
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let Binary {
            build_id,
            size,
            is_rust,
            rustc,
            stripped,
            debug_file,
            refused_debug_files,
            libc,
            libraries,
            symbols,
            probes,
            task_slot,
            task_id_place: _,
        } = &self.binary;
        let probe = |(point, presence): &(ProbePoint, Presence)| match presence {
            Presence::Found { places, refused } => serde_json::json!({
                "probe": point.path(),
                "places": places
                    .iter()
                    .map(|place| serde_json::json!({
                        "file_offset": place.file_offset,
                        "symbols": place.names.iter().map(|name| &**name).collect::<Vec<_>>(),
                    }))
                    .collect::<Vec<_>>(),
                "refused": refused
                    .iter()
                    .map(|place| serde_json::json!({
                        "address": place.address,
                        "symbol": &*place.name,
                        "reason": place.reason.to_string(),
                    }))
                    .collect::<Vec<_>>(),
            }),
            Presence::Absent(absence) => {
                serde_json::json!({ "probe": point.path(), "places": [], "reason": absence.to_string() })
            }
        };
        serde_json::json!({
            "binary": self.path.display().to_string(),
            "size": size,
            "build_id": build_id,
            "is_rust": is_rust,
            "rustc": rustc,
            "stripped": stripped,
            "debug_file": debug_file.as_ref().map(|path| path.display().to_string()),
            "refused_debug_files": refused_debug_files
                .iter()
                .map(|(path, reason)| serde_json::json!({
                    "path": path.display().to_string(),
                    "reason": reason.to_string(),
                }))
                .collect::<Vec<_>>(),
            "libc": libc.as_ref().map(ToString::to_string),
            "libraries": libraries
                .iter()
                .map(|(library, version)| (library.name().to_owned(), serde_json::json!(version)))
                .collect::<serde_json::Map<String, _>>(),
            "symbols": symbols,
            "probes": probes.iter().map(probe).collect::<Vec<_>>(),
            "task_slot": {
                "known": matches!(task_slot, TaskSlot::Known(_)),
                "detail": task_slot.to_string(),
            },
        })
    }

    /// Whether everything that the daemon wants is there: the exit code of the command. A library that is not linked in
    /// has no functions to miss, and one function that takes statements is enough.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let binary = &self.binary;
        let there = |point: ProbePoint| !binary.places(point).is_empty();
        let needed = |point: &ProbePoint| match point {
            ProbePoint::SqlxStatement => false,
            ProbePoint::SqlxQuery | ProbePoint::SqlxQueryEnd => {
                binary.has(Library::Sqlx) && !there(ProbePoint::SqlxStatement)
            }
            // sqlx serves other databases too, and a mapper may be used without transactions.
            ProbePoint::SqlxNotice
            | ProbePoint::SqlxBegin
            | ProbePoint::SqlxBeginText
            | ProbePoint::SqlxRollback
            | ProbePoint::SeaOrmRaw
            | ProbePoint::SeaOrmBegin
            | ProbePoint::Custom(_) => false,
            // One version has the one, the other one the other.
            ProbePoint::SeaOrmCall => binary.has(Library::SeaOrm) && !there(ProbePoint::SeaOrmRaw),
            ProbePoint::AxumRoute | ProbePoint::TokioTaskEnter | ProbePoint::TokioSpawn => true,
        };
        ProbePoint::ALL.iter().filter(|point| needed(point)).all(|&point| there(point))
            && !matches!(binary.task_slot, TaskSlot::Absent { .. })
    }
}

impl fmt::Display for BinaryReport {
    /// Paths, versions and reasons come from the binary: each line is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: String| escape::line(&text).into_owned();
        let Binary {
            build_id,
            size,
            is_rust,
            rustc,
            stripped,
            debug_file,
            refused_debug_files,
            libc,
            libraries,
            symbols,
            probes,
            task_slot,
            task_id_place: _,
        } = &self.binary;
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        writeln!(f, "binary     {}", line(self.path.display().to_string()))?;
        writeln!(f, "size       {size} bytes")?;
        writeln!(f, "build id   {}", build_id.as_deref().unwrap_or("none"))?;
        match rustc {
            Some(version) => writeln!(f, "rust       yes, rustc {}", line(version.clone()))?,
            None => writeln!(f, "rust       {}", yes(*is_rust))?,
        }
        if let Some(libc) = libc {
            writeln!(f, "libc       {}", line(libc.to_string()))?;
            match debug_file {
                Some(path) => {
                    writeln!(f, "stripped   yes, {symbols} symbols from {}", line(path.display().to_string()))?;
                }
                None => writeln!(f, "stripped   {}, {symbols} symbols", yes(*stripped))?,
            }
        }
        for (path, reason) in refused_debug_files {
            writeln!(f, "not used   debug file {path:?}: {reason}")?;
        }
        if !libraries.is_empty() {
            let list: Vec<String> = libraries
                .iter()
                .map(|(library, version)| match version {
                    Some(version) => format!("{} {version}", library.name()),
                    None => library.name().to_owned(),
                })
                .collect();
            writeln!(f, "libraries  {}", line(list.join(", ")))?;
        }
        writeln!(f)?;
        for (point, presence) in probes {
            writeln!(f, "{}\n  {}", line(point.to_string()), line(presence.to_string()))?;
        }
        write!(f, "tokio's task id\n  {}", line(task_slot.to_string()))
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { places, refused } => {
                let offsets: Vec<String> = places.iter().map(|place| format!("{:#x}", place.file_offset)).collect();
                write!(f, "found at file offset {}", offsets.join(", "))?;
                match refused.first() {
                    Some(first) => write!(
                        f,
                        "; {} more without a probe, since the code contradicts the symbol table: at {:#x} {}",
                        refused.len(),
                        first.address,
                        first.reason
                    ),
                    None => Ok(()),
                }
            }
            Self::Absent(absence) => write!(f, "absent: {absence}"),
        }
    }
}

impl fmt::Display for TaskSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(offset) => {
                let sign = if *offset < 0 { '-' } else { '+' };
                write!(f, "found at thread pointer {sign} {:#x}", offset.unsigned_abs())
            }
            Self::NeedsCalibration { reason, .. } => {
                write!(f, "to be calibrated on the running process: {reason}")
            }
            Self::Absent { reason } => write!(f, "absent: {reason}"),
        }
    }
}
