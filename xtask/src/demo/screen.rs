//! Where the demo draws: over itself on a terminal, line by line elsewhere.
//!
//! Reads: the terminal's size, each time. Yields: text on standard output. Costs: one write a picture.

use std::io::{self, Write as _};
use std::time::Duration;

use super::table;
use crate::metrics::Routes;

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

    /// Shows the last `seconds`. A terminal gets table and addresses, since what was printed before scrolls away; a file
    /// gets one line, and the table at the end.
    pub fn draw(
        &mut self,
        addresses: &[(&str, String)],
        seconds: f64,
        elapsed: Duration,
        window: &Routes,
        cost: &str,
    ) -> io::Result<()> {
        if !self.terminal {
            return write(&format!("{:>4} s  {}\n", elapsed.as_secs(), table::summary(window, seconds)));
        }
        let (rows, columns) = terminal_size();
        let mut foot = vec![String::new(), cost.to_owned()];
        foot.extend(addresses.iter().map(|(name, address)| format!("{name:<12} {address}")));
        // What the table adds: its head, "… more routes" and the sum; and the title, and the line of the cursor.
        let room = rows.saturating_sub(foot.len() + 5).max(1);
        let mut lines = vec![format!("last {seconds:.0} s (Ctrl-C ends)")];
        lines.extend(table::render(window, seconds, room, columns));
        lines.append(&mut foot);
        let lines: Vec<String> = lines.iter().map(|line| line.chars().take(columns).collect()).collect();
        let text = self.erase() + &lines.join("\n") + "\n";
        self.height = lines.len();
        write(&text)
    }

    /// Shows all of it, once.
    pub fn finish(&mut self, seconds: f64, whole: &Routes, cost: &str) -> io::Result<()> {
        let columns = if self.terminal { terminal_size().1 } else { usize::MAX };
        let lines = table::render(whole, seconds, usize::MAX, columns);
        let text = format!("{}\nall {seconds:.0} s\n{}\n\n{cost}\n", self.erase(), lines.join("\n"));
        self.height = 0;
        write(&text)
    }

    /// ECMA-48: cursor up, then erase to the end of the screen.
    fn erase(&self) -> String {
        if self.height > 0 { format!("\x1b[{}A\x1b[J", self.height) } else { String::new() }
    }
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
