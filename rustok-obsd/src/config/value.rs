//! Kinds of values: how each is read from TOML and from text, printed, and what it allows.
//!
//! Reads: a value of the file, a variable or a flag. Yields: the field set, or the reason with what is allowed. Costs:
//! once at start.

use super::collector::Pattern;
use super::lists::{self, HEADER_NAMES, HOSTS, MODULES};
use super::{Endpoint, Pairs, ProbeSets, parse_pairs, redact};
use axum::http::{HeaderName, HeaderValue, Uri};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// An enumeration that a key selects from.
pub trait Choice {
    /// All names.
    fn names(&self) -> &'static [&'static str];
    /// The selected one.
    fn name(&self) -> &'static str;
    /// Selects; false where the name is unknown.
    fn select(&mut self, name: &str) -> bool;
}

/// The field behind a key.
pub enum Slot<'a> {
    /// `true` or `false`.
    Bool(&'a mut bool),
    /// A number within bounds.
    Integer(&'a mut usize, usize, usize),
    /// Bytes: a power of two within bounds.
    PowerOfTwo(&'a mut usize, usize, usize),
    /// 0.0 to 1.0.
    Ratio(&'a mut f64),
    /// A time within bounds.
    Duration(&'a mut Duration, Duration, Duration),
    /// Free text, empty is none.
    Text(&'a mut Option<String>),
    /// An absolute path.
    Path(&'a mut PathBuf),
    /// `ADDRESS:PORT`.
    Address(&'a mut SocketAddr),
    /// One of several names.
    Choice(&'a mut dyn Choice),
    /// Headers of HTTP.
    Headers(&'a mut Pairs),
    /// Attributes of a resource.
    Attributes(&'a mut Pairs),
    /// URL of a collector.
    Endpoint(&'a mut Option<Endpoint>),
    /// Name of a header, empty is none.
    HeaderName(&'a mut Option<String>),
    /// Names of headers.
    HeaderNames(&'a mut Vec<String>),
    /// TCP ports.
    Ports(&'a mut Vec<u16>),
    /// Sets of uprobes.
    Probes(&'a mut ProbeSets),
    /// Modules by route prefix.
    Modules(&'a mut Pairs),
    /// A regular expression, not anchored; empty matches nothing.
    Pattern(&'a mut Pattern),
    /// A list of names or paths.
    Names(&'a mut Vec<String>),
    /// Names or addresses of hosts.
    Hosts(&'a mut Vec<String>),
}

/// Which conventions a text follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style<'a> {
    /// Ours: times carry a unit.
    Own,
    /// A variable of the OpenTelemetry specification, by name: times are milliseconds, names match in any case.
    Otel(&'a str),
}

impl Slot<'_> {
    /// What the key allows, for messages and documentation.
    pub fn allowed(&self) -> String {
        match self {
            Self::Bool(_) => "`true` or `false`".into(),
            Self::Integer(_, min, max) => format!("a whole number from {min} to {max}"),
            Self::PowerOfTwo(_, min, max) => format!("a power of two from {min} to {max}"),
            Self::Ratio(_) => "a number from 0.0 to 1.0".into(),
            Self::Duration(_, min, max) => {
                format!("a time from {} to {}, such as `5s` or `500ms`", print_duration(*min), print_duration(*max))
            }
            Self::Text(_) => "text".into(),
            Self::Path(_) => "an absolute path".into(),
            Self::Address(_) => "`ADDRESS:PORT`, such as `127.0.0.1:9464` or `[::1]:9464`".into(),
            Self::Choice(choice) => {
                choice.names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            }
            Self::Headers(_) => "a table of names and values, or `name=value,name=value`".into(),
            Self::Attributes(_) => "a table of keys and values, or `key=value,key=value`".into(),
            Self::Endpoint(_) => "a URL such as `http://localhost:4317`".into(),
            Self::HeaderName(_) => "the name of an HTTP header, or empty for none".into(),
            Self::HeaderNames(_) => HEADER_NAMES.into(),
            Self::Ports(_) => "a list of ports from 1 to 65535".into(),
            Self::Probes(_) => format!("a list of `{}`; as text also `none`", ProbeSets::NAMES.join("`, `")),
            Self::Modules(_) => MODULES.into(),
            Self::Pattern(_) => "a regular expression (the crate `regex`), not anchored; empty for none".into(),
            Self::Names(_) => "a list of texts".into(),
            Self::Hosts(_) => HOSTS.into(),
        }
    }

    /// The current value as TOML; `None` where nothing is set.
    pub fn print(&self) -> Option<String> {
        Some(match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value, ..) | Self::PowerOfTwo(value, ..) => value.to_string(),
            Self::Ratio(value) => format!("{value:?}"),
            Self::Duration(value, ..) => format!("\"{}\"", print_duration(**value)),
            Self::Text(value) => format!("{:?}", value.as_ref()?),
            Self::Path(value) => format!("{:?}", value.display().to_string()),
            Self::Address(value) => format!("\"{value}\""),
            Self::Choice(choice) => format!("\"{}\"", choice.name()),
            Self::Endpoint(value) => format!("{:?}", value.as_ref()?.url),
            Self::Headers(pairs) | Self::Attributes(pairs) | Self::Modules(pairs) if pairs.0.is_empty() => return None,
            // No secrets.
            Self::Modules(pairs) => {
                let pairs: Vec<String> = pairs.0.iter().map(|(key, value)| format!("{key:?} = {value:?}")).collect();
                format!("{{ {} }}", pairs.join(", "))
            }
            Self::HeaderName(value) => format!("{:?}", value.as_deref().unwrap_or_default()),
            Self::HeaderNames(names) => format!("{names:?}"),
            Self::Ports(ports) => format!("{ports:?}"),
            Self::Pattern(pattern) => toml_text(pattern.as_str()),
            Self::Names(names) | Self::Hosts(names) => format!("{names:?}"),
            Self::Probes(sets) => {
                format!("{:?}", sets.all().iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect::<Vec<_>>())
            }
            Self::Headers(_) | Self::Attributes(_) => "{ … }".into(),
        })
    }

    /// Sets the field from text.
    ///
    /// # Errors
    /// The reason with what is allowed.
    pub fn set_text(&mut self, text: &str, style: Style<'_>) -> Result<(), String> {
        let text = text.trim();
        let done = match self {
            Self::Bool(value) => parse_bool(text, style).map(|parsed| **value = parsed),
            Self::Integer(..) | Self::PowerOfTwo(..) => {
                return text.parse().map_err(|_| ()).and_then(|number| self.set_integer(number)).or(self.refuse(text));
            }
            Self::Ratio(_) => {
                return text.parse().map_err(|_| ()).and_then(|number| self.set_ratio(number)).or(self.refuse(text));
            }
            Self::Duration(value, min, max) => match style {
                Style::Own => parse_duration(text),
                Style::Otel(_) => text.parse().ok().map(Duration::from_millis),
            }
            .filter(|parsed| parsed >= min && parsed <= max)
            .map(|parsed| **value = parsed),
            Self::Text(value) => {
                **value = (!text.is_empty()).then(|| text.to_owned());
                Some(())
            }
            Self::Path(value) => text.starts_with('/').then(|| **value = PathBuf::from(text)),
            Self::Address(value) => parse_address(text).map(|parsed| **value = parsed),
            Self::Choice(choice) => select(*choice, text, style),
            Self::Headers(pairs) => return set_headers(pairs, parse_pairs(text)?),
            Self::Attributes(pairs) => {
                **pairs = parse_pairs(text)?;
                Some(())
            }
            Self::Endpoint(value) => return set_endpoint(value, text, style),
            Self::HeaderName(value) => {
                **value = if text.is_empty() { None } else { Some(lists::header_name(text)?) };
                Some(())
            }
            Self::Modules(pairs) => return lists::set_modules(pairs, parse_pairs(text)?),
            Self::Pattern(pattern) => {
                **pattern = Pattern::parse(text)?;
                Some(())
            }
            Self::HeaderNames(_) | Self::Ports(_) | Self::Probes(_) | Self::Names(_) | Self::Hosts(_) => {
                return lists::set(self, &lists::split(text));
            }
        };
        done.map_or_else(|| self.refuse(text), Ok)
    }

    /// Sets the field from a value of the file.
    ///
    /// # Errors
    /// The reason with what is allowed.
    pub fn set_toml(&mut self, value: &DeValue<'_>) -> Result<(), String> {
        match (&mut *self, value) {
            (Self::Bool(slot), DeValue::Boolean(parsed)) => {
                **slot = *parsed;
                Ok(())
            }
            (Self::Integer(..) | Self::PowerOfTwo(..), DeValue::Integer(number)) => {
                let parsed = usize::from_str_radix(&number.as_str().replace('_', ""), number.radix());
                parsed.map_err(|_| ()).and_then(|number| self.set_integer(number)).or(self.refuse(number.as_str()))
            }
            (Self::Ratio(_), DeValue::Float(_) | DeValue::Integer(_)) => {
                let text = match value {
                    DeValue::Float(number) => number.as_str(),
                    DeValue::Integer(number) => number.as_str(),
                    _ => "",
                };
                self.set_text(text, Style::Own)
            }
            (Self::HeaderNames(_) | Self::Ports(_) | Self::Probes(_) | Self::Names(_) | Self::Hosts(_), value) => {
                match lists::members(value) {
                    Some(Ok(items)) => lists::set(self, &items),
                    Some(Err(member)) => Err(format!("holds {member}; allowed: {}", self.allowed())),
                    None => Err(format!("is {}; allowed: {}", article(value), self.allowed())),
                }
            }
            (Self::Headers(_) | Self::Attributes(_) | Self::Modules(_), DeValue::Table(table)) => {
                let mut parsed = Vec::with_capacity(table.len());
                for (key, value) in table {
                    let DeValue::String(value) = value.get_ref() else {
                        return Err(format!("`{}` must be text", key.get_ref()));
                    };
                    parsed.push((key.get_ref().to_string(), value.to_string()));
                }
                match self {
                    Self::Headers(pairs) => set_headers(pairs, Pairs(parsed)),
                    Self::Modules(pairs) => lists::set_modules(pairs, Pairs(parsed)),
                    Self::Attributes(pairs) => {
                        **pairs = Pairs(parsed);
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            (Self::Bool(_) | Self::Integer(..) | Self::PowerOfTwo(..) | Self::Ratio(_), other) => {
                Err(format!("is {}; allowed: {}", article(other), self.allowed()))
            }
            (_, DeValue::String(text)) => self.set_text(text, Style::Own),
            (_, other) => Err(format!("is {}; allowed: {}", article(other), self.allowed())),
        }
    }

    fn refuse(&self, text: &str) -> Result<(), String> {
        Err(format!("`{text}` is not allowed; allowed: {}", self.allowed()))
    }

    fn set_integer(&mut self, number: usize) -> Result<(), ()> {
        match self {
            Self::Integer(slot, min, max) if (*min..=*max).contains(&number) => **slot = number,
            Self::PowerOfTwo(slot, min, max) if (*min..=*max).contains(&number) && number.is_power_of_two() => {
                **slot = number;
            }
            _ => return Err(()),
        }
        Ok(())
    }

    fn set_ratio(&mut self, number: f64) -> Result<(), ()> {
        match self {
            Self::Ratio(slot) if (0.0..=1.0).contains(&number) => **slot = number,
            _ => return Err(()),
        }
        Ok(())
    }
}

/// A text as TOML, literal where that is easier to read.
fn toml_text(text: &str) -> String {
    if text.contains('\\') && !text.contains('\'') { format!("'{text}'") } else { format!("{text:?}") }
}

/// A kind of TOML value with its article.
pub(super) fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// The specification: only `true`, in any case, is true.
fn parse_bool(text: &str, style: Style<'_>) -> Option<bool> {
    match style {
        Style::Own => text.parse().ok(),
        Style::Otel(_) => text.to_ascii_lowercase().parse().ok(),
    }
}

/// `OTEL_TRACES_EXPORTER` may be a list; the first that is known counts.
fn select(choice: &mut dyn Choice, text: &str, style: Style<'_>) -> Option<()> {
    match style {
        Style::Own => choice.select(text),
        Style::Otel(_) => text.split(',').any(|name| choice.select(&name.trim().to_ascii_lowercase())),
    }
    .then_some(())
}

/// `1h30m`, `5s`, `500ms`, `0s`: whole numbers, each with `ms`, `s`, `m`, `h` or `d`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, tail) = tail.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit_ms)?))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// The inverse of [`parse_duration`].
pub(super) fn print_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest >= unit_ms {
            let _ = write!(text, "{}{unit}", rest / unit_ms);
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// An address and port; `localhost` is IPv4's, `:9464` every address, as Prometheus' programs take it.
fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)));
    }
    if let Some(port) = text.strip_prefix(':') {
        return Some(SocketAddr::from(([0u16; 8], port.parse().ok()?)));
    }
    text.parse().ok()
}

fn set_headers(slot: &mut Pairs, headers: Pairs) -> Result<(), String> {
    // Neither is shown: a value that was written in a wrong way can stand where the name belongs.
    for (index, (name, value)) in headers.0.iter().enumerate() {
        let number = index + 1;
        if HeaderName::try_from(name.as_str()).is_err() {
            return Err(format!(
                "the name of header {number} is no name of an HTTP header; allowed: letters, digits and !#$%&'*+-.^_`|~"
            ));
        }
        if HeaderValue::try_from(value.as_str()).is_err() {
            return Err(format!(
                "the value of header {number} holds characters that HTTP forbids; allowed: visible ASCII"
            ));
        }
    }
    *slot = headers;
    Ok(())
}

/// Checks what can be checked without the other keys; the scheme of a bare `host:port` depends on `insecure`.
fn set_endpoint(slot: &mut Option<Endpoint>, text: &str, style: Style<'_>) -> Result<(), String> {
    let allowed = "allowed: a URL such as `http://localhost:4317` (gRPC) or `http://localhost:4318` (HTTP)";
    if text.is_empty() {
        *slot = None;
        return Ok(());
    }
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    // The text is not shown: any part of it may be a password or a key.
    let uri: Uri = full.parse().map_err(|error| format!("is no URL ({error}); {allowed}"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(NO_TLS.to_owned()),
        scheme => return Err(format!("has {}; {allowed}", redact::scheme(scheme.unwrap_or_default()))),
    }
    // Also behind the first `/`: a password may hold one.
    if full.contains('@') {
        return Err(format!("a URL with a user name or password is refused; use `traces.headers`; {allowed}"));
    }
    let port = |authority: &str, host: &str| authority.strip_prefix(host).is_some_and(|port| !port.is_empty());
    if uri.authority().is_some_and(|authority| port(authority.as_str(), authority.host()) && authority.port().is_none())
    {
        return Err(format!("is no URL (its port is no number); {allowed}"));
    }
    let exact = style == Style::Otel("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    *slot = Some(Endpoint { url: text.to_owned(), exact });
    Ok(())
}

/// What is said of an endpoint that wants TLS.
pub(super) const NO_TLS: &str = "TLS to the collector is not built in; allowed: an `http://` URL of a collector on \
                                 this host, which forwards with TLS (a bare HOST:PORT also needs `traces.insecure = \
                                 true` or OTEL_EXPORTER_OTLP_INSECURE=true)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_alike() {
        for (text, ms) in [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0)] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parsed, Duration::from_millis(ms), "{text}");
            assert_eq!(print_duration(parsed), text);
        }
        for bad in ["", "5", "s", "5 s", "-5s", "5sec", "1.5s", "5s3", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_are_read_as_prometheus_programs_do() {
        for (text, expected) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("localhost:1", "127.0.0.1:1"),
            (":9464", "[::]:9464"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), expected);
        }
        for bad in ["", "9464", "127.0.0.1", "127.0.0.1:99999", "host:9464"] {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
    }
}
