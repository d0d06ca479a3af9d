//! The code of an error as PostgreSQL tells it (protocol 3, "Error and Notice Message Fields").
//!
//! Reads: the beginning of an ErrorResponse or NoticeResponse. Yields: its SQLSTATE, where it is an error; never its text.
//! Costs: a pass over some twenty bytes.

/// The SQLSTATE of an error; `None` for a notice, and where the code was not captured.
#[must_use]
pub fn error_code(fields: &[u8]) -> Option<[u8; 5]> {
    let (mut error, mut code) = (None, None);
    for field in fields.split(|byte| *byte == 0) {
        let Some((&name, value)) = field.split_first() else { break };
        match name {
            // The severity that is never translated counts more than the one that is.
            b'V' => error = Some(is_error(value)),
            b'S' if error.is_none() => error = Some(is_error(value)),
            b'C' => {
                code = value.try_into().ok().filter(|code: &[u8; 5]| code.iter().all(u8::is_ascii_alphanumeric));
                break;
            }
            _ => {}
        }
    }
    // A translated severity (servers before 9.6) is one of an error unless the code's class is a warning's or success.
    let code = code?;
    let warning = matches!(code, [b'0', b'0' | b'1' | b'2', ..]);
    (error == Some(true) || (error == Some(false) && !fields.contains(&b'V') && !warning)).then_some(code)
}

fn is_error(severity: &[u8]) -> bool {
    matches!(severity, b"ERROR" | b"FATAL" | b"PANIC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errors_code_is_read_and_a_notices_is_not() {
        let cases: [(&[u8], Option<[u8; 5]>); 6] = [
            (b"SERROR\0VERROR\0C23505\0Mduplicate key", Some(*b"23505")),
            (b"SFEHLER\0VERROR\0C42P01\0M", Some(*b"42P01")),
            (b"SNOTICE\0VNOTICE\0C42P07\0Mrelation exists", None),
            (b"SERROR\0VERROR\0C235", None),
            (b"", None),
            (b"\0\0\0", None),
        ];
        for (fields, code) in cases {
            assert_eq!(error_code(fields), code, "{}", fields.escape_ascii());
        }
    }
}
