//! The end of the process where it cannot go on.
//!
//! Reads: the reason. Yields: a line of the log, an exit code. Costs: a thread, half a second at most.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::Duration,
};

/// Standard error may be what hangs: the line gets this long.
const LINE: Duration = Duration::from_millis(500);

/// Logs `reason` as an error and ends the process with `code`, within half a second, whatever hangs or is locked. What the
/// kernel holds for the process (uprobes, programs, maps) goes with it.
pub fn end(reason: String, code: u8) -> ! {
    say(move || tracing::error!("{reason}"));
    exit(code)
}

/// The same for an end that was asked for: the line is a warning.
pub fn exit_after(reason: String, code: u8) -> ! {
    say(move || tracing::warn!("{reason}"));
    exit(code)
}

/// On a thread of its own, since nobody knows who holds the lock of the log.
fn say(line: impl FnOnce() + Send + 'static) {
    static SPEAKING: AtomicBool = AtomicBool::new(false);
    if SPEAKING.swap(true, Ordering::Relaxed) {
        // Another thread is at it, and ends the process.
        thread::sleep(LINE);
        return;
    }
    let (said, heard) = sync_channel(1);
    let speak = move || {
        line();
        let _ = said.send(());
    };
    if thread::Builder::new().name("last-words".into()).spawn(speak).is_ok() {
        let _ = heard.recv_timeout(LINE);
    }
}

fn exit(code: u8) -> ! {
    // SAFETY: takes a number. No handler of the C library runs: one of them might wait for a thread that hangs.
    unsafe { libc::_exit(i32::from(code)) }
}
