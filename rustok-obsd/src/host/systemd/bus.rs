//! The connection to systemd by D-Bus, kept between scrapes.
//!
//! Reads: a Unix socket. Yields: answers of `org.freedesktop.systemd1`. Costs: a thread of none: the messages are handled while
//! a scrape waits for them. All of it ends with the scrape's deadline; a connection that failed or was late is dropped.

use crate::host::{CollectError, Settings};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use zbus::connection;
use zbus::message::Message;
use zbus::{Connection, Error, Variant, fdo};

/// The name of systemd on the bus.
const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Left of the time for telling that it was over.
const MARGIN: Duration = Duration::from_millis(10);
/// As libdbus; an address in it is the operator's own.
const ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// Where systemd is asked.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// Its private socket, without a bus.
    Private(PathBuf),
    /// The socket of the system bus.
    Bus(PathBuf),
    /// The system bus by an address of D-Bus.
    Address(String),
}

impl Place {
    fn new(settings: &Settings, address: Option<String>) -> Self {
        let below_root = |path: &str| settings.paths.rootfs.join(path);
        match address.filter(|address| !address.is_empty()) {
            _ if settings.options.systemd_private => Self::Private(below_root("run/systemd/private")),
            Some(address) => Self::Address(address),
            None => Self::Bus(below_root("run/dbus/system_bus_socket")),
        }
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let builder = match self {
            Self::Address(address) => connection::Builder::address(address.as_str()),
            Self::Private(path) | Self::Bus(path) => {
                // Ours never blocks: a socket whose queue is full is an error.
                let stream = UnixStream::connect(path).await.and_then(UnixStream::into_std);
                connection::Builder::unix_stream(stream.map_err(Error::from)?)
            }
        };
        let builder = if matches!(self, Self::Private(_)) { builder.p2p() } else { builder };
        builder.build().await
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(path) => write!(f, "systemd's private socket {}", path.display()),
            Self::Bus(path) => write!(f, "the system bus {}", path.display()),
            Self::Address(address) => write!(f, "the system bus `{address}` ({ADDRESS})"),
        }
    }
}

/// A text or a number of systemd.
#[derive(Clone, Debug, PartialEq)]
pub enum Property {
    /// `s`.
    Text(String),
    /// `u`, `t`.
    Number(u64),
}

/// The connection and where it goes.
pub struct Bus {
    place: Place,
    runtime: Option<Runtime>,
    connection: Option<Connection>,
}

impl Bus {
    /// By the options; nothing is opened yet.
    pub fn new(settings: &Settings) -> Self {
        let place = Place::new(settings, std::env::var(ADDRESS).ok());
        Self { place, runtime: None, connection: None }
    }

    /// Has `work` use the connection until `deadline`. Where a kept connection turns out to be dead, `work` is begun anew.
    ///
    /// # Errors
    /// Names the socket, the reason and what helps.
    pub fn run(
        &mut self,
        deadline: Instant,
        mut work: impl AsyncFnMut(&Connection) -> zbus::Result<()>,
    ) -> Result<(), CollectError> {
        let Self { place, runtime, connection } = self;
        if runtime.is_none() {
            let built = Builder::new_current_thread().enable_io().enable_time().build();
            *runtime = Some(built.map_err(|source| CollectError::Call { call: "epoll_create", source })?);
        }
        let Some(runtime) = runtime else { return Ok(()) };
        let until = deadline.checked_sub(MARGIN).unwrap_or(deadline).into();
        let kept = connection.take();
        let asking = async {
            if let Some(kept) = kept.filter(|kept| !kept.is_closed()) {
                match work(&kept).await {
                    Ok(()) => return Ok(kept),
                    Err(Error::InputOutput(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let new = place.connect().await?;
            work(&new).await.map(|()| new)
        };
        // The time-out itself has to begin in the runtime.
        let outcome = runtime.block_on(async { tokio::time::timeout_at(until, asking).await });
        match outcome {
            Ok(Ok(used)) => {
                *connection = Some(used);
                Ok(())
            }
            Ok(Err(error)) => Err(explained(place, &error)),
            Err(_) => {
                let what = format!(
                    "{place} takes connections, but systemd does not answer; see `systemctl status`, and `journalctl -u \
                     dbus` for the bus"
                );
                Err(CollectError::Late(what))
            }
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Its end is a task of the runtime.
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        self.connection = None;
    }
}

/// Calls a method of systemd's manager.
pub async fn manager(connection: &Connection, method: &str) -> zbus::Result<Message> {
    let path = "/org/freedesktop/systemd1";
    let interface = Some("org.freedesktop.systemd1.Manager");
    connection.call_method(Some(SYSTEMD), path, interface, method, &()).await
}

/// A property of an object of systemd; `None` where the object or the property is not there (any more).
///
/// # Errors
/// Of the connection.
pub async fn property(
    connection: &Connection,
    path: &str,
    interface: &str,
    name: &str,
) -> zbus::Result<Option<Property>> {
    let properties = Some("org.freedesktop.DBus.Properties");
    let answer = connection.call_method(Some(SYSTEMD), path, properties, "Get", &(interface, name)).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if is_refusal(&error) => {
            tracing::debug!("systemd: {path} {interface}.{name}: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let body = answer.body();
    Ok(match body.deserialize::<Variant<'_>>()? {
        Variant::Str(text) => Some(Property::Text(text.as_str().to_owned())),
        Variant::U32(number) => Some(Property::Number(number.into())),
        Variant::U64(number) => Some(Property::Number(number)),
        _ => None,
    })
}

/// Whether systemd, and not the bus, said no: about this object or property alone.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::MethodError(..) => true,
        Error::FDO(error) => {
            !matches!(**error, fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) | fdo::Error::ZBus(_))
        }
        _ => false,
    }
}

/// An error with the socket and what helps.
fn explained(place: &Place, error: &Error) -> CollectError {
    let remedy = match error {
        Error::InputOutput(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "start it, or turn the collector systemd off; in a container mount the host's /run and set path.rootfs, or \
                 name the bus in DBUS_SYSTEM_BUS_ADDRESS"
            }
            io::ErrorKind::PermissionDenied => "run as root, or give the user access to the socket",
            _ => "it is tried again at the next scrape",
        },
        Error::Handshake(_) => {
            "the user that we run as must be known to the bus; in a container share the host's user namespace"
        }
        Error::FDO(error) => match **error {
            fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => {
                "systemd is not on this bus: turn the collector systemd off, or name the host's bus in \
                 DBUS_SYSTEM_BUS_ADDRESS"
            }
            fdo::Error::AccessDenied(_) | fdo::Error::AuthFailed(_) => {
                "allow our user to call org.freedesktop.systemd1 in /etc/dbus-1/system.d"
            }
            _ => "it is tried again at the next scrape",
        },
        _ => "it is tried again at the next scrape",
    };
    CollectError::Other(format!("{place}: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_below_the_root_unless_an_address_or_the_private_one_is_asked_for() {
        let mut settings = Settings::default();
        settings.paths.rootfs = "/host".into();
        let place = Place::new(&settings, Some(String::new()));
        assert_eq!(place, Place::Bus("/host/run/dbus/system_bus_socket".into()));
        assert_eq!(Place::new(&settings, Some("unix:path=/x".into())), Place::Address("unix:path=/x".into()));
        settings.options.systemd_private = true;
        let place = Place::new(&settings, Some("unix:path=/x".into()));
        assert_eq!(place, Place::Private("/host/run/systemd/private".into()));
    }
}
