//! Keys whose value is a list of names or numbers, and what each member has to be.
//!
//! Reads: members, from a list of the file or between the commas of a text. Yields: the checked list, or the reason
//! with what is allowed. Costs: once at start.

use super::{Pairs, ProbeSets, Slot};
use crate::exchange::Wanted;
use crate::exposition::is_host_name;
use axum::http::HeaderName;
use toml::de::DeValue;

/// Headers that hold secrets: no configuration makes their values leave.
const SECRET_HEADERS: [&str; 5] = ["authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key"];

/// What a list of headers may be.
pub(super) const HEADER_NAMES: &str = "a list of up to 16 names of HTTP headers, without `authorization`, `cookie`, \
                                       `set-cookie`, `proxy-authorization`, `x-api-key`";
/// What a list of modules may be.
pub(super) const MODULES: &str = "a table of route prefixes and names of modules (`a-z`, `0-9`, `_`, `-`, `.`), or \
                                  `/prefix=module,/prefix=module`";

/// What a list of hosts may be.
pub(super) const HOSTS: &str = "a list of names or addresses of hosts, without port, or `*`";

/// Members of a list in the file; `None` where the value is none.
pub(super) fn members(value: &DeValue<'_>) -> Option<Result<Vec<String>, String>> {
    let DeValue::Array(list) = value else { return None };
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        // Other bases would have to be converted: nobody writes ports so.
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().replace('_', "")),
        other => Err(super::value::article(other)),
    };
    Some(list.iter().map(|item| one(item.get_ref())).collect())
}

/// Members of a text.
pub(super) fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(ToOwned::to_owned).collect()
}

/// Sets the field of a list.
pub(super) fn set(slot: &mut Slot<'_>, items: &[String]) -> Result<(), String> {
    let allowed = slot.allowed();
    match slot {
        Slot::HeaderNames(names) => **names = header_names(items, &allowed)?,
        Slot::Names(names) => **names = items.to_vec(),
        Slot::Hosts(names) => {
            if let Some(bad) = items.iter().find(|item| *item != "*" && !is_host_name(item)) {
                return Err(format!("`{bad}` is no name of a host; allowed: {allowed}"));
            }
            **names = items.to_vec();
        }
        Slot::Ports(ports) => **ports = self::ports(items, &allowed)?,
        Slot::Probes(sets) => {
            let mut parsed = ProbeSets::none();
            // `none` alone, since an empty variable is an unset one.
            let none = matches!(items, [only] if only == "none");
            if let Some(bad) = items.iter().find(|name| !none && !parsed.turn_on(name)) {
                return Err(format!("`{bad}` is not allowed; allowed: {allowed}"));
            }
            **sets = parsed;
        }
        _ => return Err(format!("is a list; allowed: {allowed}")),
    }
    Ok(())
}

/// One header, in the case that was given.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if SECRET_HEADERS.contains(&&*lower) {
        return Err(format!(
            "`{text}` is refused: its value is a secret, and would be stored with every span; leave it out"
        ));
    }
    if HeaderName::try_from(text).is_err() {
        return Err(format!("`{text}` is no name of an HTTP header; allowed: letters, digits and !#$%&'*+-.^_`|~"));
    }
    Ok(text.to_owned())
}

fn header_names(items: &[String], allowed: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let name = header_name(item)?.to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > Wanted::FIELDS {
        return Err(format!("lists {} headers; allowed: {allowed}", names.len()));
    }
    Ok(names)
}

fn ports(items: &[String], allowed: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::with_capacity(items.len());
    for item in items {
        match item.parse() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return Err(format!("`{item}` is not allowed; allowed: {allowed}")),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// Modules by route prefix.
pub(super) fn set_modules(slot: &mut Pairs, modules: Pairs) -> Result<(), String> {
    for (prefix, module) in &modules.0 {
        if !prefix.starts_with('/') || prefix.contains(char::is_whitespace) {
            return Err(format!("`{prefix}` is no prefix of a route; allowed: {MODULES}"));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
        if module.is_empty() || module.len() > 64 || !module.bytes().all(plain) {
            return Err(format!("`{module}` of `{prefix}` is no name of a module; allowed: {MODULES}"));
        }
    }
    *slot = modules;
    Ok(())
}
