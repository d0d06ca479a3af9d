//! What of a secret-bearing value may be shown.
//!
//! Reads: a URL. Yields: its parts that are no secrets. Costs: once at start.

/// A URL without user, password, query and fragment. What cannot be told apart is left out.
pub(super) fn url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let mark = if scheme.is_empty() { "" } else { "://" };
    let (shown, hidden) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    // A password may hold any letter, also one that should end it: all before the last `@` is hidden, and where that
    // lies beyond, nobody knows what is what.
    let shown = if hidden.contains('@') { "…" } else { shown.rsplit_once('@').map_or(shown, |(_, shown)| shown) };
    format!("{scheme}{mark}{shown}")
}

/// A scheme that a collector's URL cannot have; shown where it looks like one.
pub(super) fn scheme(scheme: &str) -> String {
    let is_plain = (1..=8).contains(&scheme.len()) && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    if is_plain { format!("the scheme `{scheme}`") } else { "a scheme other than `http`".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_host_port_and_path_are_shown() {
        for (full, shown) in [
            ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
            ("collector:4317", "collector:4317"),
            ("http://[::1]:4317", "http://[::1]:4317"),
            ("http://user:s3cret@collector:4318/x?key=s3cret#s3cret", "http://collector:4318/x"),
            ("http://user:s3/cr@et@collector/x", "http://collector/x"),
            ("user:s3cret@collector", "collector"),
            ("http://user:12?s3cret@collector", "http://…"),
            ("http://collector?s3cret", "http://collector"),
        ] {
            assert_eq!(url(full), shown);
        }
    }

    #[test]
    fn a_scheme_is_shown_where_it_looks_like_one() {
        assert_eq!(scheme("ftp"), "the scheme `ftp`");
        for other in ["", "s3cret", "averylongscheme"] {
            assert_eq!(scheme(other), "a scheme other than `http`");
        }
    }
}
