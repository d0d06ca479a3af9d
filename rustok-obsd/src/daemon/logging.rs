//! The daemon's own log, on standard error.
//!
//! Reads: `[log]`. Yields: lines for people, or JSON. Costs: nothing per record; the hot path does not log.
//!
//! Whatever a record holds, it is one line: names that a local user chose are escaped here, for every message and field
//! ([`crate::escape`]). Libraries log warnings and errors only, at any level: their other records may hold the headers of
//! an export and what a collector answered.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use tracing::{Subscriber, field::Field};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::config::{Choice as _, Config, Log, LogFormat, LogLevel};
use crate::escape;

/// Starts logging; a second call changes nothing.
pub fn start(config: &Config) {
    let _ = tracing::subscriber::set_global_default(subscriber(&config.log, io::stderr, io::stderr().is_terminal()));
}

/// What takes the records and writes them.
pub fn subscriber<M>(log: &Log, writer: M, colours: bool) -> Box<dyn Subscriber + Send + Sync>
where
    M: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let libraries = if log.level == LogLevel::Error { LogLevel::Error } else { LogLevel::Warn };
    let filter = format!("{},rustok_obsd={}", libraries.name(), log.level.name());
    let builder = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::new(filter));
    match log.format {
        LogFormat::Json => Box::new(builder.json().with_ansi(false).with_writer(JsonLines(writer)).finish()),
        LogFormat::Text => {
            let fields = format::debug_fn(field).delimited(" ");
            Box::new(builder.with_target(false).with_ansi(colours).fmt_fields(fields).with_writer(writer).finish())
        }
    }
}

/// A field, or the message, of a line for people.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    use fmt::Write as _;
    let mut line = escape::Line(writer);
    match field.name() {
        "message" => write!(line, "{value:?}"),
        name => write!(line, "{}={value:?}", name.strip_prefix("r#").unwrap_or(name)),
    }
}

/// Lines of JSON without the control characters that JSON allows.
struct JsonLines<M>(M);

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for JsonLines<M> {
    type Writer = JsonLine<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

struct JsonLine<W>(W);

impl<W: Write> Write for JsonLine<W> {
    /// A whole record at a time: so the formatter writes them.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape::json(&String::from_utf8_lossy(record)).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Ends a line, begins a forged one, clears the terminal by C0 and by C1, and turns the reading order around.
    const HOSTILE: &str = "shop\n2026-01-01T00:00:00Z  INFO all is well\r\x1b[2J\u{9b}2J\u{202e}\u{2028}\x7f\\\"";

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the daemon's own subscriber writes.
    fn written(log: &Log, records: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        tracing::subscriber::with_default(subscriber(log, move || writer.clone(), false), records);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The hostile name by every way into a record.
    fn hostile_records() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0} has ended")]
        struct Failure(String);
        let failure = Failure(HOSTILE.to_owned());
        tracing::info!("process 1, {HOSTILE}");
        tracing::warn!(name = HOSTILE, "a text");
        tracing::warn!(name = %HOSTILE, "displayed");
        tracing::warn!(name = ?HOSTILE, "debugged");
        tracing::error!(error = &failure as &dyn std::error::Error, "an error");
        tracing::error!(%failure, r#type = %HOSTILE, "displayed");
        let _span = tracing::info_span!("of", name = %HOSTILE).entered();
        tracing::info!(message = HOSTILE);
    }

    #[test]
    fn a_hostile_name_stays_on_its_line_of_text() {
        let text = written(&Log::default(), hostile_records);
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(!text.contains(|letter| letter != '\n' && escape::forges(letter)), "{text:?}");
        for line in text.lines() {
            assert!(line.contains("shop\\n2026") && !line.starts_with("2026-01-01"), "{line}");
        }
        assert!(text.contains("WARN a text name=\"shop"), "{text}");
        assert!(text.contains(" type=shop\\n"), "{text}");
    }

    #[test]
    fn a_hostile_name_stays_in_its_string_of_json() {
        let log = Log { format: LogFormat::Json, ..Log::default() };
        let text = written(&log, hostile_records);
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(!text.contains(|letter| letter != '\n' && escape::forges(letter)), "{text:?}");
        let records: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        assert_eq!(records[0]["fields"]["message"], format!("process 1, {HOSTILE}"));
        assert_eq!(records[1]["fields"]["name"], HOSTILE);
    }

    #[test]
    fn libraries_say_nothing_below_a_warning() {
        let log = Log { level: LogLevel::Trace, ..Log::default() };
        let text = written(&log, || {
            tracing::debug!(target: "h2::codec", "authorization: secret");
            tracing::info!(target: "hyper", "secret");
            tracing::warn!(target: "hyper", "is shown");
            tracing::trace!("ours");
        });
        assert!(text.contains("is shown") && text.contains("ours") && !text.contains("secret"), "{text}");
        let log = Log { level: LogLevel::Error, ..Log::default() };
        assert_eq!(written(&log, || tracing::warn!(target: "hyper", "x")), "");
    }
}
