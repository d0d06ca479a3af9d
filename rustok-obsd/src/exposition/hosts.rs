//! Which names a request may call this server by.
//!
//! Reads: `Host`, or the authority of the request's target. Yields: whether it is answered. Costs: a few comparisons.
//!
//! A web page in a browser on this host can let its own name point to 127.0.0.1 and so read what loopback serves (DNS
//! rebinding): the request then carries that name. A server that listens on loopback answers to `localhost`, to loopback
//! addresses, to the address that was connected to, and to `web.allowed_hosts`; one that listens elsewhere to any name,
//! unless `web.allowed_hosts` is set. `Forwarded` and `X-Forwarded-Host` say nothing: the page can send them.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version, header};
use std::net::{IpAddr, Ipv6Addr};

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    checks: bool,
    allowed: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// HTTP/1.1 wants one `Host`.
    Missing,
    /// Two do not say which.
    Several,
    /// A name that is not this server's; empty where it is none at all.
    Foreign(String),
}

impl Hosts {
    /// `loopback`: the server listens there alone. Of the names, `*` allows any.
    pub(super) fn new(loopback: bool, allowed: &[String]) -> Self {
        let checks = (loopback || !allowed.is_empty()) && !allowed.iter().any(|name| name == "*");
        Self { checks, allowed: allowed.iter().map(|name| plain(name)).collect() }
    }

    /// Whether a request is answered; `local` is the address that was connected to.
    pub(super) fn check(
        &self,
        version: Version,
        target: &Uri,
        headers: &HeaderMap,
        local: IpAddr,
    ) -> Result<(), Unanswered> {
        if !self.checks {
            return Ok(());
        }
        let mut hosts = headers.get_all(header::HOST).into_iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Unanswered::Several);
        }
        // Whoever serves behind us would go by the target, who looks at the log by the other: both have to fit.
        let target = target.authority().map(Authority::as_str);
        let named = match host.map(|host| host.to_str()) {
            Some(Ok(host)) => Some(host.trim()),
            Some(Err(_)) => return Err(Unanswered::Foreign(String::new())),
            // No browser speaks HTTP/1.0.
            None if target.is_some() || version < Version::HTTP_11 => None,
            None => return Err(Unanswered::Missing),
        };
        let foreign = named.into_iter().chain(target).find(|authority| !self.answers(authority, local));
        foreign.map_or(Ok(()), |authority| {
            Err(Unanswered::Foreign(name(authority).filter(|name| is_name(name)).unwrap_or_default().to_owned()))
        })
    }

    fn answers(&self, authority: &str, local: IpAddr) -> bool {
        let Some(name) = name(authority) else { return false };
        let name = plain(name);
        if name == "localhost" || self.allowed.contains(&name) {
            return true;
        }
        name.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || address == local.to_canonical()
        })
    }
}

/// In lower case, without the root's dot and the brackets of IPv6.
fn plain(name: &str) -> String {
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The host of `HOST[:PORT]`; `None` where it is neither.
fn name(authority: &str) -> Option<&str> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            name.parse::<Ipv6Addr>().ok()?;
            (name, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let is_port = port.is_empty() || port.parse::<u16>().is_ok();
    (is_port && !name.is_empty()).then_some(name)
}

/// Whether a text can be the name or the address of a host, and be shown as such.
pub(crate) fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    address.parse::<IpAddr>().is_ok() || !text.is_empty() && text.len() <= 253 && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 1, 2, 3));

    fn ask(hosts: &Hosts, target: &str, names: &[&str]) -> Result<(), Unanswered> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(header::HOST, HeaderValue::from_str(name).unwrap());
        }
        // Whatever a proxy, or a page, says of it.
        headers.insert("x-forwarded-host", HeaderValue::from_static("localhost"));
        headers.insert("forwarded", HeaderValue::from_static("host=localhost"));
        hosts.check(Version::HTTP_11, &target.parse().unwrap(), &headers, LOCAL)
    }

    #[test]
    fn on_loopback_its_own_names_are_answered_and_no_other() {
        let hosts = Hosts::new(true, &["prometheus.example".into(), "[fd00::1]".into()]);
        for name in [
            "localhost",
            "LocalHost:9464",
            "localhost.:1",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:9464",
            "[::ffff:127.0.0.1]",
            "127.1.2.3",
            "Prometheus.example:443",
            "[fd00::1]",
        ] {
            assert_eq!(ask(&hosts, "/status", &[name]), Ok(()), "{name}");
        }
        for name in [
            "attacker.example:9464",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "192.0.2.1",
            "host.docker.internal",
            "x.localhost",
            "0.0.0.0",
        ] {
            let shown = name.split(':').next().unwrap_or_default();
            assert_eq!(ask(&hosts, "/status", &[name]), Err(Unanswered::Foreign(shown.into())), "{name}");
        }
        for name in ["", "localhost:x", "localhost:80:80", "user@localhost", "[::1", "[localhost]", "::1", "a b"] {
            assert!(matches!(ask(&hosts, "/", &[name]), Err(Unanswered::Foreign(_))), "{name}");
        }
        assert_eq!(ask(&hosts, "/", &[]), Err(Unanswered::Missing));
        assert_eq!(ask(&hosts, "/", &["localhost", "localhost"]), Err(Unanswered::Several));
        let old = hosts.check(Version::HTTP_10, &Uri::from_static("/"), &HeaderMap::new(), LOCAL);
        assert_eq!(old, Ok(()));
    }

    #[test]
    fn a_target_with_an_authority_has_to_fit_too() {
        let hosts = Hosts::new(true, &[]);
        assert_eq!(ask(&hosts, "http://localhost:9464/metrics", &["localhost"]), Ok(()));
        assert_eq!(ask(&hosts, "http://127.0.0.1/metrics", &[]), Ok(()));
        for (target, name) in [("http://a.example/", "localhost"), ("http://localhost/", "a.example")] {
            assert_eq!(ask(&hosts, target, &[name]), Err(Unanswered::Foreign("a.example".into())), "{target} {name}");
        }
    }

    #[test]
    fn elsewhere_any_name_is_answered_unless_names_are_configured() {
        assert_eq!(ask(&Hosts::new(false, &[]), "/", &["a.example"]), Ok(()));
        assert_eq!(ask(&Hosts::new(false, &[]), "/", &[]), Ok(()));
        let named = Hosts::new(false, &["a.example".into()]);
        assert_eq!(ask(&named, "/", &["a.example"]), Ok(()));
        assert!(ask(&named, "/", &["b.example"]).is_err());
        assert_eq!(ask(&Hosts::new(true, &["*".into()]), "/", &["b.example"]), Ok(()));
    }
}
