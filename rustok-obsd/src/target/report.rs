//! What `rustok-obsd probes --binary PATH` prints.
//!
//! Reads: a [`Binary`]. Yields: text for people. Costs: nothing worth a number.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::escape;

use super::binary::{Binary, BinaryError, Presence};
use super::points::{Library, ProbePoint};
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
    /// [`BinaryError`] where it cannot be read.
    pub fn new(path: &Path) -> Result<Self, BinaryError> {
        Ok(Self { path: path.to_owned(), binary: Binary::analyse(path, Path::new("/"), &[])? })
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let Binary {
            id,
            size,
            is_rust,
            rustc,
            stripped,
            debug_file,
            libc,
            libraries,
            symbols,
            probes,
            task_slot,
            task_id_place: _,
        } = &self.binary;
        let probe = |(point, presence): &(ProbePoint, Presence)| match presence {
            Presence::Found(places) => serde_json::json!({
                "probe": point.path(),
                "places": places
                    .iter()
                    .map(|place| serde_json::json!({ "file_offset": place.file_offset, "symbols": place.names }))
                    .collect::<Vec<_>>(),
            }),
            Presence::Absent(absence) => {
                serde_json::json!({ "probe": point.path(), "places": [], "reason": absence.to_string() })
            }
        };
        serde_json::json!({
            "binary": self.path.display().to_string(),
            "size": size,
            "build_id": id.to_string(),
            "is_rust": is_rust,
            "rustc": rustc,
            "stripped": stripped,
            "debug_file": debug_file.as_ref().map(|path| path.display().to_string()),
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
            | ProbePoint::SqlxRollback
            | ProbePoint::SeaOrmBegin
            | ProbePoint::Custom(_) => false,
            ProbePoint::SeaOrmCall => binary.has(Library::SeaOrm),
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
            id,
            size,
            is_rust,
            rustc,
            stripped,
            debug_file,
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
        writeln!(f, "build id   {id}")?;
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
            Self::Found(places) => {
                let offsets: Vec<String> = places.iter().map(|place| format!("{:#x}", place.file_offset)).collect();
                write!(f, "found at file offset {}", offsets.join(", "))
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
