//! Which layer wins, and what every kind of bad input is told.

mod bad;
mod database;
mod layers;
mod otel;
mod secrets;

use super::*;
use std::ffi::OsString;

/// Loads a file's text, variables and flags; the file is called `test.toml`.
fn load(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources {
        file: Some(path),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect(),
        flags: flags.iter().map(|(path, value)| (*path, (*value).to_owned())).collect(),
        targets: TargetFlags::default(),
    };
    let prefix = format!("{}/", folder.path().display());
    sources
        .load()
        .map_err(|error| error.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
}
