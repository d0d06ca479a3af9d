//! What a SQLSTATE means to an operator: the name of its class, and how bad it is.
//!
//! Reads: five characters. Yields: words of PostgreSQL's documentation, "PostgreSQL Error Codes". Costs: a scan over 44 pairs.

/// How bad an error is (RusToK's `ErrorSeverity`, in lower case: its alerts select `critical`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// A conflict that is expected under load: the caller retries it, or tells its user.
    Warning,
    /// A statement that could not be done.
    Error,
    /// The database, or what carries it, is in trouble.
    Critical,
}

impl Severity {
    /// As label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Position in [`NAMES`] of a code without a class of its own, and of none.
pub(super) const UNKNOWN: u8 = 0;

/// Names of the classes by [`class`].
pub(super) const NAMES: [&str; 1 + CLASSES.len()] = {
    let mut names = ["unknown"; 1 + CLASSES.len()];
    let mut i = 0;
    while i < CLASSES.len() {
        names[i + 1] = CLASSES[i].1;
        i += 1;
    }
    names
};

const CLASSES: [(&str, &str); 44] = [
    ("00", "successful_completion"),
    ("01", "warning"),
    ("02", "no_data"),
    ("03", "sql_statement_not_yet_complete"),
    ("08", "connection_exception"),
    ("09", "triggered_action_exception"),
    ("0A", "feature_not_supported"),
    ("0B", "invalid_transaction_initiation"),
    ("0F", "locator_exception"),
    ("0L", "invalid_grantor"),
    ("0P", "invalid_role_specification"),
    ("0Z", "diagnostics_exception"),
    ("10", "xquery_error"),
    ("20", "case_not_found"),
    ("21", "cardinality_violation"),
    ("22", "data_exception"),
    ("23", "integrity_constraint_violation"),
    ("24", "invalid_cursor_state"),
    ("25", "invalid_transaction_state"),
    ("26", "invalid_sql_statement_name"),
    ("27", "triggered_data_change_violation"),
    ("28", "invalid_authorization_specification"),
    ("2B", "dependent_privilege_descriptors_still_exist"),
    ("2D", "invalid_transaction_termination"),
    ("2F", "sql_routine_exception"),
    ("34", "invalid_cursor_name"),
    ("38", "external_routine_exception"),
    ("39", "external_routine_invocation_exception"),
    ("3B", "savepoint_exception"),
    ("3D", "invalid_catalog_name"),
    ("3F", "invalid_schema_name"),
    ("40", "transaction_rollback"),
    ("42", "syntax_error_or_access_rule_violation"),
    ("44", "with_check_option_violation"),
    ("53", "insufficient_resources"),
    ("54", "program_limit_exceeded"),
    ("55", "object_not_in_prerequisite_state"),
    ("57", "operator_intervention"),
    ("58", "system_error"),
    ("72", "snapshot_failure"),
    ("F0", "config_file_error"),
    ("HV", "fdw_error"),
    ("P0", "plpgsql_error"),
    ("XX", "internal_error"),
];

/// Class of a code, as index of its name.
#[must_use]
pub(super) fn class(code: [u8; 5]) -> u8 {
    CLASSES.iter().position(|(class, _)| class.as_bytes() == &code[..2]).map_or(UNKNOWN, |at| at as u8 + 1)
}

/// Name of a code's class, such as `integrity_constraint_violation`; `unknown` without one.
#[must_use]
pub fn class_name(code: [u8; 5]) -> &'static str {
    NAMES[usize::from(class(code))]
}

/// How bad a code is.
#[must_use]
pub fn severity(code: [u8; 5]) -> Severity {
    match &code {
        // A statement timeout, or a cancelled request; the rest of class 57 is a server that goes down.
        b"57014" => Severity::Error,
        [b'0', b'8', ..]
        | [b'2', b'8', ..]
        | [b'5', b'3', ..]
        | [b'5', b'7', ..]
        | [b'5', b'8', ..]
        | [b'F', b'0', ..]
        | [b'X', b'X', ..] => Severity::Critical,
        [b'2', b'3', ..] | [b'4', b'0', ..] | [b'4', b'4', ..] | b"55P03" => Severity::Warning,
        _ => Severity::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_postgres_and_a_severity() {
        for (code, name, wanted) in [
            (b"23505", "integrity_constraint_violation", Severity::Warning),
            (b"40P01", "transaction_rollback", Severity::Warning),
            (b"42P01", "syntax_error_or_access_rule_violation", Severity::Error),
            (b"53300", "insufficient_resources", Severity::Critical),
            (b"57014", "operator_intervention", Severity::Error),
            (b"57P01", "operator_intervention", Severity::Critical),
            (b"XX000", "internal_error", Severity::Critical),
            (b"ZZ999", "unknown", Severity::Error),
        ] {
            assert_eq!((class_name(*code), severity(*code)), (name, wanted), "{}", code.escape_ascii());
        }
        assert!(CLASSES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
