//! Whether the tasks in which routes are matched are those that serve connections.
//!
//! Reads: the task of each matched route. Yields: a [`Doubt`], once, where the evidence is against it: then a request
//! without a route is not one that matched none. Costs: two counters a target.

/// What does not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Where the task's id should be there is none: the slot is another one. axum serves every connection in a task.
    NoTask,
    /// The task reads from no connection: requests are handed to tasks of their own.
    OtherTask,
}

/// The evidence of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    without_task: u32,
    elsewhere: u32,
    assigned: u32,
}

impl Doubts {
    /// So many against it, and more than for it: the first requests of connections older than the daemon are too few.
    const ENOUGH: u32 = 256;

    /// Takes a matched route: its task, and whether that task serves a connection.
    pub const fn judge(&mut self, task: u64, assigned: bool) -> Option<Doubt> {
        let (count, doubt) = if assigned {
            self.assigned = self.assigned.saturating_add(1);
            return None;
        } else if is_task_id(task) {
            (&mut self.elsewhere, Doubt::OtherTask)
        } else {
            (&mut self.without_task, Doubt::NoTask)
        };
        *count = count.saturating_add(1);
        if *count >= Self::ENOUGH && *count > self.assigned { Some(doubt) } else { None }
    }
}

/// Tokio counts tasks from 1: a larger number than any process spawns is none.
const fn is_task_id(task: u64) -> bool {
    task != 0 && task < 1 << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_routes_in_no_task_or_another_raise_a_doubt_and_few_do_not() {
        for (task, doubt) in [(0, Doubt::NoTask), (u64::MAX, Doubt::NoTask), (7, Doubt::OtherTask)] {
            let mut doubts = Doubts::default();
            assert!((1..Doubts::ENOUGH).all(|_| doubts.judge(task, false).is_none()));
            assert_eq!(doubts.judge(task, false), Some(doubt));
        }
    }

    #[test]
    fn a_target_whose_routes_are_mostly_assigned_is_not_doubted() {
        let mut doubts = Doubts::default();
        assert!((0..10_000).all(|_| doubts.judge(7, true).is_none()));
        assert!((0..2 * Doubts::ENOUGH).all(|_| doubts.judge(8, false).is_none()));
    }
}
