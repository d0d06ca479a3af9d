//! Binds the listening socket; an error names the address, the reason and the remedy.
//!
//! Reads: an address as users write it. Yields: a listener. Costs: a name look-up where a name is given.

use std::io;
use std::net::SocketAddr;
use thiserror::Error;
use tokio::net::{TcpListener, lookup_host};

/// Why the daemon cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// The text is no `HOST:PORT`.
    #[error(
        "cannot listen on `{address}`: {reason}; give HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464, to --web.listen-address"
    )]
    Invalid {
        /// As given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The host has no address.
    #[error(
        "cannot listen on `{address}`: the host name does not resolve ({source}); give an IP address to --web.listen-address"
    )]
    Unresolved {
        /// As given.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// `EADDRINUSE`.
    #[error("cannot listen on {address}: the port is in use; `ss -ltnp 'sport = :{}'` names the process that holds it; stop that or give another port to --web.listen-address", address.port())]
    InUse {
        /// The address tried.
        address: SocketAddr,
    },
    /// `EACCES`.
    #[error(
        "cannot listen on {address}: permission denied; ports below net.ipv4.ip_unprivileged_port_start (usually 1024) need CAP_NET_BIND_SERVICE; give a higher port to --web.listen-address"
    )]
    PermissionDenied {
        /// The address tried.
        address: SocketAddr,
    },
    /// `EADDRNOTAVAIL`.
    #[error(
        "cannot listen on {address}: this host has no such address; `ip -brief address` lists those it has; give one of them to --web.listen-address"
    )]
    NotAvailable {
        /// The address tried.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}; give another address to --web.listen-address")]
    Other {
        /// The address tried.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Listens on `HOST:PORT`; an empty host (`:9464`) means every interface, as with Prometheus' exporters.
///
/// # Errors
/// See [`BindError`]. Where a name has several addresses the first that works is taken; the last error is told.
pub async fn bind(address: &str) -> Result<TcpListener, BindError> {
    let invalid = |reason| BindError::Invalid { address: address.to_owned(), reason };
    let (host, port) = address.rsplit_once(':').ok_or_else(|| invalid("the port is missing"))?;
    if port.parse::<u16>().is_err() {
        return Err(invalid("the port is no number from 0 to 65535"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(invalid("an IPv6 address must stand in brackets"));
    }
    let wildcard = format!("[::]:{port}");
    let unresolved = |source| BindError::Unresolved { address: address.to_owned(), source };
    let candidates = lookup_host(if host.is_empty() { &wildcard } else { address }).await.map_err(unresolved)?;
    let mut last = unresolved(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for address in candidates {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if !address.ip().is_loopback() {
                    tracing::warn!(%address, "metrics and status are open to whoever reaches this address: there is no authentication");
                }
                return Ok(listener);
            }
            Err(source) => last = explain(address, source),
        }
    }
    Err(last)
}

fn explain(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::PermissionDenied { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotAvailable { address },
        _ => BindError::Other { address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(address: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(bind(address)).expect_err("the address must be refused").to_string()
    }

    #[test]
    fn a_bad_address_is_named_with_what_is_wrong() {
        for (address, reason) in [
            ("localhost", "the port is missing"),
            ("127.0.0.1:http", "no number"),
            ("127.0.0.1:65536", "no number"),
            ("::1:9464", "brackets"),
            ("", "the port is missing"),
        ] {
            let message = error(address);
            assert!(message.contains(&format!("`{address}`")) && message.contains(reason), "{message}");
            assert!(message.contains("--web.listen-address"), "{message}");
        }
    }

    #[test]
    fn a_taken_port_is_named_with_the_way_to_its_holder() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let message = error(&address.to_string());
        assert!(message.starts_with(&format!("cannot listen on {address}: the port is in use")), "{message}");
        assert!(message.contains(&format!("sport = :{}", address.port())), "{message}");
    }

    #[test]
    fn an_address_of_another_host_is_told_as_such() {
        // 192.0.2.0/24 is for documentation (RFC 5737): no host has it.
        let message = error("192.0.2.1:9464");
        assert!(message.contains("this host has no such address"), "{message}");
    }

    #[test]
    fn refusals_of_the_kernel_are_explained() {
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let denied = explain(address, io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(
            denied.contains("127.0.0.1:80: permission denied") && denied.contains("CAP_NET_BIND_SERVICE"),
            "{denied}"
        );
    }
}
