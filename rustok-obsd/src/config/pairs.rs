//! `key=value,key=value`, as the OpenTelemetry specification writes headers and resource attributes.
//!
//! Reads: one string. Yields: decoded pairs. Costs: once at start and once per target.

use std::fmt;

/// Pairs of a key and a value, in order. `Debug` hides the values: headers are secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(String, String)>);

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(key, _)| (key, "<hidden>"))).finish()
    }
}

impl Pairs {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Parses `k=v,k2=v2` with percent-encoded values (W3C Baggage without properties, as
/// <https://opentelemetry.io/docs/specs/otel/resource/sdk/> prescribes).
///
/// # Errors
/// A pair without `=`, an empty key, or a value that does not decode to UTF-8: the whole string is refused, as the
/// specification wants. The message never contains a key or a value.
pub fn parse_pairs(text: &str) -> Result<Pairs, String> {
    let mut pairs = Vec::new();
    for (index, pair) in text.split(',').enumerate() {
        if pair.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("pair {number} has no `=`"))?;
        let key = key.trim();
        if key.is_empty() {
            return Err(format!("pair {number} has an empty key"));
        }
        // The key is not shown either: a value that was written in a wrong way can stand where it belongs.
        let value = decode(value.trim())
            .ok_or_else(|| format!("the value of pair {number} is not valid percent-encoded UTF-8"))?;
        pairs.push((key.to_owned(), value));
    }
    Ok(Pairs(pairs))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            // `from_str_radix` takes a sign.
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_trimmed_and_percent_decoded() {
        let pairs = parse_pairs(" a = 1 ,b=x%2Cy%3D%25,,c=é=z,").unwrap();
        assert_eq!(pairs.get("a"), Some("1"));
        assert_eq!(pairs.get("b"), Some("x,y=%"));
        assert_eq!(pairs.get("c"), Some("é=z"));
        assert_eq!(pairs.0.len(), 3);
        assert_eq!(parse_pairs("").unwrap(), Pairs::default());
    }

    #[test]
    fn one_bad_pair_refuses_the_whole_string_without_showing_values() {
        for bad in
            ["secret", "a=1,secret", "=secret", "k=secret%2", "k=secret%zz", "k=secret%+1", "k=secret%ff", "secret=%zz"]
        {
            let message = parse_pairs(bad).unwrap_err();
            assert!(!message.contains("secret"), "{bad}: {message}");
        }
    }

    #[test]
    fn values_never_show_in_debug_output() {
        let pairs = parse_pairs("authorization=Bearer%20token").unwrap();
        let text = format!("{pairs:?}");
        assert!(text.contains("authorization") && !text.contains("token"), "{text}");
    }
}
