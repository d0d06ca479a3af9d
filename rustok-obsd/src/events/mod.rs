//! Events of the host's kernel, for who accounts for processes and containers.
//!
//! Reads: the ring of the programs that [`crate::probe::HostPrograms`] loads. Yields: typed [`Event`]s to the
//! [`Subscriber`]s, in the order of the ring. Costs: a thread that sleeps until the ring is a quarter full, a cgroup or a
//! victim comes, or half a second has passed; nothing is allocated per event.

mod event;
mod source;
mod thread;

pub use event::{CpuTime, Event, Exec, OomKill, ProcessId, Subscriber, Totals};
pub use source::EventSource;
pub use thread::EventThread;
