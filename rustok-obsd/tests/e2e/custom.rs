//! Functions that the user names (`[[database.probe]]`): what they tell is what the database counts.
//!
//! Over TLS and without the sets that know the drivers, so that nothing but these functions can name a statement.

use std::fs;

use rustok_obsd::statement::Statement;
use test_support::{Skip, Tls, skip};

use super::{
    faults::or_skip,
    serial,
    stage::{RING, Stage, Table, WIRE_ALONE, counted, differing, ours, since, told},
};

/// Each statement of sqlx passes here; its text is the second argument, and its length the third.
const TEXT: &str = r#"
[[database.probe]]
function = "sqlx_core::logger::QueryLogger::new"
kind = "text"
argument = 1
"#;
/// Two ways to ask, whose argument holds the text somewhere: in each copy of them elsewhere. In the spelling of `nm -C`.
/// Copies that were inlined tell nothing.
const STATEMENT: &str = r#"
[[database.probe]]
function = "sqlx_postgres::connection::executor::<impl sqlx_core::executor::Executor for &mut sqlx_postgres::connection::PgConnection>::fetch_many"
kind = "statement"
argument = 1

[[database.probe]]
function = "sqlx_postgres::connection::executor::<impl sqlx_core::executor::Executor for &mut sqlx_postgres::connection::PgConnection>::fetch_optional"
kind = "statement"
argument = 1
"#;
/// `BEGIN` passes none of these.
const BEGIN: &str = r#"
[[database.probe]]
function = "<sqlx_postgres::transaction::PgTransactionManager as sqlx_core::transaction::TransactionManager>::begin"
kind = "begin"
"#;

/// What the functions told of a load, and what the database counted of it. The text's place is found in a load before that.
fn accounts(probes: &str) -> Result<(Table, Table, String), Skip> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rustok-obsd.toml");
    fs::write(&file, probes).expect("write");
    let file = file.to_str().expect("UTF-8");
    let mut stage = Stage::set("RUSTOK_OBSD_LEDGER", Tls::On)?;
    stage.watch(&[&RING[..], &WIRE_ALONE, &["--config.file", file]].concat())?;
    stage.load("database", 1500, 16, 7)?;
    let before = stage.metrics();
    stage.scene.postgres.count_statements()?;
    stage.load("database", 3000, 64, 17)?;
    let after = stage.metrics();
    let database = counted(&stage.scene);
    let run = stage.end();
    let mut told_of = since(&ours(&after, &run.truth), &ours(&before, &run.truth));
    // Round trips that no function began: pings of the pool, while no text was found yet.
    let unnamed = format!("{:016x}", Statement::unknown().fingerprint);
    told_of.retain(|text, _| !text.contains(&unnamed));
    Ok((told_of, database, told(&after)))
}

#[test]
fn functions_that_the_user_names_tell_what_passes_them() {
    let name = "functions_that_the_user_names_tell_what_passes_them";
    let _alone = serial();
    let (told_of, database, text) = or_skip!(name, accounts(&format!("{TEXT}{BEGIN}")));
    let missed = differing(&told_of, &database);
    assert!(missed.is_empty() && told_of.len() > 10, "{missed:#?}\n{text}");

    let (told_of, mut database, text) = or_skip!(name, accounts(STATEMENT));
    database.retain(|statement, _| told_of.contains_key(statement));
    let wrong = differing(&told_of, &database);
    assert!(wrong.is_empty() && told_of.len() > 10, "{told_of:#?}\n{wrong:#?}\n{text}");
}
