//! How many lines the log gets from what processes do.
//!
//! Reads: the kind of a line, before it is written, and whose process it is about. Yields: yes or no, and once a minute how
//! many lines were left out. Costs: a look-up a line. Who starts processes decides how often there is something to say: a
//! user who forks without end must not fill the disk, nor hide the lines on the processes of trusted users.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Lines of one kind in a [`ROUND`], on processes of trusted users and of all others each.
const MOST: u64 = 20;
const ROUND: Duration = Duration::from_secs(60);

/// Kinds of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Observed,
    Ended,
    Refused,
    Attached,
    Routes,
    Tasks,
    Statements,
    Maps,
}

impl Line {
    /// What such lines are about.
    const fn subject(self) -> &'static str {
        match self {
            Self::Observed => "processes that are observed from now on",
            Self::Ended => "processes that have ended",
            Self::Refused => "processes that are not observed",
            Self::Attached => "probes that are not attached",
            Self::Routes => "where routes come from",
            Self::Tasks => "Tokio's task ids",
            Self::Statements => "the places of statements",
            Self::Maps => "the kernel programs' maps",
        }
    }
}

/// See the module's head.
pub(super) struct Lines {
    since: Instant,
    wanted: BTreeMap<(Line, bool), u64>,
}

impl Lines {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, wanted: BTreeMap::new() }
    }

    /// Whether a line may be written.
    pub(super) fn admit(&mut self, line: Line, trusted: bool) -> bool {
        let wanted = self.wanted.entry((line, trusted)).or_default();
        *wanted += 1;
        *wanted <= MOST
    }

    /// Ends the round where it is over. Yields what the log has to say of it: one line, where others were left out.
    pub(super) fn left_out(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.since) < ROUND {
            return None;
        }
        self.since = now;
        let wanted = std::mem::take(&mut self.wanted);
        let left_out = wanted.into_iter().filter(|(_, wanted)| *wanted > MOST).map(|((line, trusted), wanted)| {
            let whose = if trusted { "trusted users" } else { "users who are not trusted" };
            format!("{} on {} ({whose})", wanted - MOST, line.subject())
        });
        let left_out: Vec<String> = left_out.collect();
        (!left_out.is_empty())
            .then(|| format!("lines left out in the last minute, beyond {MOST} of a kind: {}", left_out.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_costs_some_lines_a_minute_and_one_that_counts_the_rest() {
        let begin = Instant::now();
        let mut lines = Lines::new(begin);
        let storm = |lines: &mut Lines| (0..100_000).filter(|_| lines.admit(Line::Observed, false)).count();
        assert_eq!(storm(&mut lines), 20);
        // Neither other kinds nor the processes of trusted users pay for it.
        assert!(lines.admit(Line::Observed, true) && lines.admit(Line::Ended, false));
        assert_eq!(lines.left_out(begin + ROUND / 2), None);
        assert!(!lines.admit(Line::Observed, false));
        let said = lines.left_out(begin + ROUND).unwrap();
        assert!(
            said.contains("99981 on processes that are observed from now on (users who are not trusted)"),
            "{said}"
        );
        assert!(!said.contains("ended") && !said.contains("(trusted users)"), "{said}");
        // Each minute anew, and nothing where nothing was left out.
        assert_eq!(storm(&mut lines), 20);
        assert!(lines.left_out(begin + 2 * ROUND).is_some());
        assert!(lines.admit(Line::Ended, true));
        assert_eq!(lines.left_out(begin + 3 * ROUND), None);
    }
}
