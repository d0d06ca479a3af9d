//! The demo's list of the costliest statements.
//!
//! Reads: what happened between two scrapes. Yields: lines of text. Costs: nothing to speak of.

use super::table::millis;
use crate::metrics::Statements;

/// At most `rows` statements of what happened in `seconds`, the costliest first, `width` columns wide; nothing without any.
pub fn render(window: &Statements, seconds: f64, rows: usize, width: usize) -> Vec<String> {
    let mut statements: Vec<_> = window.values().filter(|statement| statement.calls > 0.0).collect();
    if statements.is_empty() || rows == 0 {
        return Vec::new();
    }
    statements.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.text.cmp(&b.text)));
    let all: f64 = statements.iter().map(|statement| statement.seconds).sum();
    let mut lines = vec!["db time  calls/s  mean ms  rows  statement".to_owned()];
    lines.extend(statements.iter().take(rows).map(|statement| {
        let share = if all > 0.0 { 100.0 * statement.seconds / all } else { 0.0 };
        let share = format!("{share:.1}%");
        let rate = statement.calls / seconds.max(1e-3);
        let (mean, rows) = (millis(statement.seconds / statement.calls), statement.rows / statement.calls);
        let head = format!("{share:>7} {rate:>8.1} {mean:>8} {rows:>5.1}  ");
        let room = width.saturating_sub(head.chars().count());
        // A statement may hold line feeds where its text was not understood.
        let text = statement.text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let cut = statement.text.chars().count() > room;
        let text: String = text.take(room - usize::from(cut && room > 0)).collect();
        if cut && room > 0 { format!("{head}{text}…") } else { head + &text }
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Statement;

    fn window() -> Statements {
        let statement = |text: &str, calls: f64, seconds: f64, rows: f64| {
            (text.to_owned(), Statement { text: text.to_owned(), calls, seconds, rows })
        };
        [
            statement("SELECT id, title FROM nodes\nWHERE tenant_id = ? AND slug = ?", 100.0, 0.3, 100.0),
            statement("COMMIT", 50.0, 0.7, 0.0),
            statement("idle", 0.0, 0.0, 0.0),
        ]
        .into()
    }

    #[test]
    fn the_costliest_comes_first_and_texts_end_at_the_border() {
        let lines = render(&window(), 10.0, 5, 60);
        assert_eq!(
            lines,
            [
                "db time  calls/s  mean ms  rows  statement",
                "  70.0%      5.0     14.0   0.0  COMMIT",
                "  30.0%     10.0      3.0   1.0  SELECT id, title FROM node…",
            ]
        );
        assert_eq!(render(&window(), 10.0, 1, 80).len(), 2);
    }

    #[test]
    fn without_statements_there_is_no_list_and_a_tiny_terminal_is_no_error() {
        assert!(render(&Statements::new(), 10.0, 5, 80).is_empty());
        assert!(render(&window(), 10.0, 0, 80).is_empty());
        assert_eq!(render(&window(), 10.0, 5, 10).len(), 3);
    }
}
