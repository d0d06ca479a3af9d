//! Transactions, as the driver's calls report their begin and their end by a drop.
//!
//! Reads: calls. Yields: BEGIN, SAVEPOINT and ROLLBACK as operations. Costs: an operation each, and a text for a SAVEPOINT.

use std::sync::Arc;

use rustok_obsd_ebpf::CallHit;

use super::{
    Ending, Sight,
    open::{Kind, Open},
    tasks::Origin,
    tracker::{Sink, Tracker, asker, identity},
};
use crate::statement::Dialect;

impl Tracker {
    /// A transaction begins. Two functions may say so: the one that begins it, then the one that makes its text.
    pub(super) fn on_begin(&mut self, hit: &CallHit, key: (u32, u64), origin: Origin, sink: &mut Sink<'_>) {
        let statement = match hit.words[0] {
            0 | 1 => Arc::clone(&self.begin),
            depth => {
                let text = format!("SAVEPOINT _sqlx_savepoint_{}", depth - 1);
                self.statements.get(self.owner(hit.tgid), text.as_bytes(), false, Dialect::ANY)
            }
        };
        if hit.words[0] != 0
            && let Some(id) = self.open.find(key, |open| is_begun(open) && open.text == (0, 0))
            && let Some(open) = self.open.get(id)
        {
            (open.statement, open.text) = (statement, identity(hit));
            return;
        }
        let call_ns = self.marks.take(key, |mark| mark.begin);
        self.begin_call(key, hit.time_ns, sink);
        let mut open = Open::new(asker(hit), hit.time_ns, statement, Kind::Short, Sight::Sqlx, origin);
        open.call_ns = call_ns;
        // Not that of a text: whether the one that was made for it is known.
        open.text = identity(hit);
        self.start(open);
    }

    /// A transaction was dropped: its ROLLBACK goes out with the next bytes of its connection.
    pub(super) fn on_rollback(&mut self, hit: &CallHit, key: (u32, u64), origin: Origin, sink: &mut Sink<'_>) {
        let found = self.link_in_transaction(key);
        if found.is_none() && self.links.values().all(|link| link.tgid() != hit.tgid || !link.is_encrypted()) {
            // The protocol will tell it.
            return;
        }
        let statement = match found.and_then(|conn| self.links.get(&conn)).map_or(1, |link| link.depth) {
            depth @ 2.. => {
                let text = format!("ROLLBACK TO SAVEPOINT _sqlx_savepoint_{}", depth - 1);
                self.statements.get(self.owner(hit.tgid), text.as_bytes(), false, Dialect::ANY)
            }
            _ => Arc::clone(&self.rollback),
        };
        let Some(id) = self.start(Open::new(asker(hit), hit.time_ns, statement, Kind::Short, Sight::Sqlx, origin))
        else {
            return;
        };
        let Some((conn, link)) = found.and_then(|conn| Some((conn, self.links.get_mut(&conn)?))) else {
            return self.finish(id, hit.time_ns, Ending::Incomplete, sink);
        };
        let before = link.deferred.replace(id);
        if let Some(open) = self.open.get(id) {
            open.conn = conn;
        }
        if let Some(before) = before {
            self.finish(before, hit.time_ns, Ending::Incomplete, sink);
        }
        self.note_change(conn);
    }
}

/// A transaction that begins and of which no byte was sent.
pub(super) fn is_begun(open: &Open) -> bool {
    open.kind == Kind::Short && open.is_unsent()
}
