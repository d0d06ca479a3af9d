//! The OpenTelemetry variables of a target's environment.
//!
//! Reads: `/proc/PID/environ`. Yields: three variables; nothing else of the environment is kept, since it holds
//! secrets. Source: OpenTelemetry specification, "Environment Variable Specification" and "Resource SDK" (attributes
//! as W3C Baggage: `key=value,key=value`, values percent-encoded).

/// What a target says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    service_name: Option<String>,
    service_version: Option<String>,
    attributes: Vec<(String, String)>,
}

impl Environment {
    /// Bytes of an environment that are looked at.
    pub const MAX: usize = 256 << 10;

    /// Picks the variables from `NAME=value`, each ended by NUL. Empty values count as unset, as the specification
    /// wants; attributes that cannot be parsed are dropped as a whole, likewise.
    #[must_use]
    pub fn parse(environ: &[u8]) -> Self {
        let mut environment = Self::default();
        for variable in environ.split(|&byte| byte == 0) {
            let Ok(variable) = std::str::from_utf8(variable) else {
                continue;
            };
            match variable.split_once('=') {
                Some((_, "")) | None => {}
                Some(("OTEL_SERVICE_NAME", value)) => environment.service_name = Some(value.to_owned()),
                Some(("OTEL_SERVICE_VERSION", value)) => environment.service_version = Some(value.to_owned()),
                Some(("OTEL_RESOURCE_ATTRIBUTES", value)) => {
                    environment.attributes = attributes(value).unwrap_or_default();
                }
                Some(_) => {}
            }
        }
        environment
    }

    /// `OTEL_SERVICE_NAME`, else `service.name` of the attributes.
    #[must_use]
    pub fn service_name(&self) -> Option<&str> {
        self.service_name.as_deref().or_else(|| self.attribute("service.name"))
    }

    /// `OTEL_SERVICE_VERSION`, else `service.version` of the attributes.
    #[must_use]
    pub fn service_version(&self) -> Option<&str> {
        self.service_version.as_deref().or_else(|| self.attribute("service.version"))
    }

    /// The attributes of `OTEL_RESOURCE_ATTRIBUTES`, decoded.
    #[must_use]
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }

    fn attribute(&self, key: &str) -> Option<&str> {
        let value = self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }
}

fn attributes(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let key = key.trim();
            (!key.is_empty()).then_some((key.to_owned(), decode(value.trim())?))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = after.split_at_checked(2)?;
            // `from_str_radix` would take a sign.
            let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_attribute() {
        let attributes =
            b"OTEL_RESOURCE_ATTRIBUTES=service.name=b, service.version=1%2C2,deployment.environment=prod\0";
        let environment = Environment::parse(&[b"A=1\0OTEL_SERVICE_NAME=a\0".as_slice(), attributes].concat());
        assert_eq!((environment.service_name(), environment.service_version()), (Some("a"), Some("1,2")));
        assert_eq!(environment.attributes().len(), 3);
        let environment = Environment::parse(&[b"OTEL_SERVICE_NAME=\0".as_slice(), attributes].concat());
        assert_eq!(environment.service_name(), Some("b"), "empty is unset");
    }

    #[test]
    fn nothing_else_of_the_environment_is_kept() {
        let environment =
            Environment::parse(b"DATABASE_URL=postgres://u:secret@h/d\0OTEL_EXPORTER_OTLP_HEADERS=k=secret\0");
        assert_eq!(environment, Environment::default());
    }

    #[test]
    fn broken_attributes_are_dropped_as_a_whole() {
        for broken in ["a", "a=1,b", "=1", "a=%4", "a=%+1", "a=%ff"] {
            let environment =
                Environment::parse(format!("OTEL_RESOURCE_ATTRIBUTES=service.name=x,{broken}").as_bytes());
            assert!(environment.attributes().is_empty(), "{broken}");
        }
    }
}
