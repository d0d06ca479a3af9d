//! Where the demo draws: over itself on a terminal, line by line elsewhere.
//!
//! Reads: the terminal's size, each time. Yields: text on standard output. Costs: one write a picture.

use std::io::{self, Write as _};
use std::time::Duration;

use super::{statements, table};
use crate::metrics::{Routes, Statements};

/// What happened between two looks.
pub struct Window {
    /// How long it is.
    pub seconds: f64,
    /// Its requests.
    pub routes: Routes,
    /// Its database operations.
    pub statements: Statements,
    /// What the daemon spent, in a line.
    pub cost: String,
}

/// Standard output.
pub struct Screen {
    terminal: bool,
    /// Lines of the last picture.
    height: usize,
}

impl Screen {
    /// For a terminal, or for a pipe or file.
    pub fn new(terminal: bool) -> Self {
        Self { terminal, height: 0 }
    }

    /// Shows the last seconds. A terminal gets tables and addresses, since what was printed before scrolls away; a file
    /// gets one line, and the tables at the end.
    pub fn draw(&mut self, addresses: &[(&str, String)], elapsed: Duration, window: &Window) -> io::Result<()> {
        if !self.terminal {
            let summary = table::summary(&window.routes, window.seconds);
            return write(&format!("{:>4} s  {summary}\n", elapsed.as_secs()));
        }
        let lines = picture(addresses, window, terminal_size());
        let text = self.erase() + &lines.join("\n") + "\n";
        self.height = lines.len();
        write(&text)
    }

    /// Shows all of it, once.
    pub fn finish(&mut self, whole: &Window) -> io::Result<()> {
        let columns = if self.terminal { terminal_size().1 } else { usize::MAX };
        let Window { seconds, routes, cost, .. } = whole;
        let mut lines = table::render(routes, *seconds, usize::MAX, columns);
        let costliest = statements::render(&whole.statements, *seconds, STATEMENTS, columns);
        if !costliest.is_empty() {
            lines.push(String::new());
            lines.extend(costliest);
        }
        let text = format!("{}\nall {seconds:.0} s\n{}\n\n{cost}\n", self.erase(), lines.join("\n"));
        self.height = 0;
        write(&text)
    }

    /// ECMA-48: cursor up, then erase to the end of the screen.
    fn erase(&self) -> String {
        if self.height > 0 { format!("\x1b[{}A\x1b[J", self.height) } else { String::new() }
    }
}

/// Statements shown where there is room.
const STATEMENTS: usize = 5;

/// Lines for a terminal of so many rows and columns. Routes give way first, down to one; then statements.
fn picture(addresses: &[(&str, String)], window: &Window, (rows, columns): (usize, usize)) -> Vec<String> {
    let Window { seconds, routes, cost, .. } = window;
    let mut foot = vec![String::new(), cost.clone()];
    foot.extend(addresses.iter().map(|(name, address)| format!("{name:<12} {address}")));
    // What the table adds: its head, "… more routes" and the sum; and the title, and the line of the cursor.
    let room = rows.saturating_sub(foot.len() + 5);
    // A third of what is left, with a blank line and a head.
    let shown = (room / 3).saturating_sub(1).min(STATEMENTS);
    let costliest = statements::render(&window.statements, *seconds, shown, columns);
    let below = if costliest.is_empty() { 0 } else { costliest.len() + 1 };
    let mut lines = vec![format!("last {seconds:.0} s (Ctrl-C ends); queries, db and pool: means per request")];
    lines.extend(table::render(routes, *seconds, room.saturating_sub(below).max(1), columns));
    if !costliest.is_empty() {
        lines.push(String::new());
        lines.extend(costliest);
    }
    lines.append(&mut foot);
    lines.iter().map(|line| line.chars().take(columns).collect()).collect()
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Rows and columns.
fn terminal_size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which is what the pointer points at.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    if done && size.ws_row > 0 && size.ws_col > 0 { (size.ws_row.into(), size.ws_col.into()) } else { (24, 80) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Route, Statement};

    fn window(routes: usize, statements: usize) -> Window {
        let route = |i: usize| {
            let route = Route { requests: 10.0 + i as f64, known: 10.0, queries: 20.0, ..Route::default() };
            ((format!("/api/commerce/section-{i}/products/{{id}}"), "DELETE".to_owned()), route)
        };
        let statement = |i: usize| {
            let text =
                format!("SELECT a, b, c FROM section_{i} WHERE tenant_id = ? AND id = ? ORDER BY created_at DESC");
            (i.to_string(), Statement { text, calls: 10.0, seconds: i as f64, rows: 5.0 })
        };
        Window {
            seconds: 10.0,
            routes: (0..routes).map(route).collect(),
            statements: (0..statements).map(statement).collect(),
            cost: "rustok-obsd: 1.0% of a core".into(),
        }
    }

    #[test]
    fn a_terminal_of_80_by_24_shows_routes_statements_and_addresses() {
        let addresses: Vec<_> = ["metrics", "Jaeger", "Prometheus"].map(|name| (name, "http://x".to_owned())).into();
        let lines = picture(&addresses, &window(40, 40), (24, 80));
        // One for the cursor.
        assert_eq!(lines.len(), 23, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!((count("DELETE …"), count("SELECT"), count("http://")), (9, 3, 3), "{lines:#?}");
        assert!(count("more") == 1 && count("db time") == 1);
    }

    #[test]
    fn every_size_has_a_picture_that_fits_where_anything_does() {
        let addresses = [("metrics", "http://x".to_owned())];
        for rows in 0..60 {
            for columns in [0, 10, 40, 80, 200] {
                let lines = picture(&addresses, &window(10, 10), (rows, columns));
                assert!(lines.len() < rows.max(10), "{rows}: {lines:#?}");
                assert!(lines.iter().all(|line| line.chars().count() <= columns));
            }
        }
        let lines = picture(&addresses, &window(10, 0), (60, 80));
        assert!(!lines.iter().any(|line| line.contains("db time")), "without statements no list: {lines:#?}");
    }
}
