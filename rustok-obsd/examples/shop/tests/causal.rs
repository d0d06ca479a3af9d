//! The shop's causal routes do what they are due to do.

#[path = "../../common/tests/servers/mod.rs"]
mod servers;

#[test]
fn every_request_of_the_shop_runs_its_statements_in_the_tasks_that_are_due() {
    let name = "every_request_of_the_shop_runs_its_statements_in_the_tasks_that_are_due";
    if let Err(reason) = servers::causality_is_as_due(env!("CARGO_BIN_EXE_shop")) {
        test_support::skip(name, reason);
    }
}

#[test]
fn the_shop_counts_statements_as_the_database_does() {
    let name = "the_shop_counts_statements_as_the_database_does";
    if let Err(reason) = servers::statements_are_those_that_the_database_counted(env!("CARGO_BIN_EXE_shop")) {
        test_support::skip(name, reason);
    }
}
