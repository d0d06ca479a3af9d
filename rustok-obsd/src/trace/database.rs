//! Spans of database operations, and of the waits for a pooled connection before them.
//!
//! Reads: an operation, on the capture thread; its record and the clock, on the exporter's. Yields: records for the
//! queue, and `SpanData` by the conventions for databases, version 1.37
//! (<https://opentelemetry.io/docs/specs/semconv/db/database-spans/>, `…/db/postgresql/`). Costs: a copy of about 200
//! bytes and three reference counts; about 20 attributes on the exporter's thread.
//!
//! Never more than the conventions' sanitised text leaves: literals, bind values and results are not captured.

use super::span::{SpanParts, context, count, ip, seconds};
use super::{
    AFFECTED_ROWS, Clock, DATABASE_OUTCOME, FINGERPRINT, KNOWLEDGE, POOL_WAIT, SIGHT, TASK_ID, TIME_TO_FIRST_BYTE,
    TargetResource, TraceIds,
};
use crate::database::{Ending, Operation, Sight, System};
use crate::statement::{Knowledge, Statement};
use opentelemetry::trace::{Link, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanLinks};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

/// Name of the span of a wait; there is no convention for it. By the metric `db.client.connection.wait_time`.
const WAIT: &str = "pool wait";

/// What an operation's span has to do with the request's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relation {
    /// Its child.
    Child(TraceIds),
    /// A trace of its own that names it.
    Linked(TraceIds),
    /// There is none.
    Root,
}

/// An operation on its way to the exporter.
#[derive(Debug)]
pub(super) struct QueryRecord {
    pub ids: TraceIds,
    pub relation: Relation,
    pub resource: Arc<TargetResource>,
    statement: Arc<Statement>,
    system: System,
    namespace: Option<Arc<str>>,
    addresses: Option<(SocketAddr, SocketAddr)>,
    start_ns: u64,
    end_ns: u64,
    first_byte_ns: Option<u64>,
    pool_wait_ns: Option<u64>,
    rows: Option<u64>,
    task: u64,
    tid: u32,
    sqlstate: Option<[u8; 5]>,
    sight: Sight,
    ending: Ending,
}

impl QueryRecord {
    /// Bytes of the text that it keeps alive.
    pub(super) fn statement_size(&self) -> usize {
        self.statement.size()
    }

    pub(super) fn new(
        ids: TraceIds,
        relation: Relation,
        resource: Arc<TargetResource>,
        operation: &Operation<'_>,
    ) -> Self {
        let sent_ns = if operation.send_ns == 0 { operation.start_ns } else { operation.send_ns };
        let first_byte_ns =
            (operation.first_ns != 0 && sent_ns != 0).then(|| operation.first_ns.saturating_sub(sent_ns));
        Self {
            ids,
            relation,
            resource,
            statement: Arc::clone(operation.statement),
            namespace: operation.namespace.cloned(),
            system: operation.system,
            addresses: operation.addresses,
            // A span without a start would begin with the machine.
            start_ns: [operation.start_ns, sent_ns, operation.first_ns]
                .into_iter()
                .find(|time| *time != 0)
                .unwrap_or(operation.end_ns),
            end_ns: operation.end_ns,
            first_byte_ns,
            pool_wait_ns: operation.pool_wait_ns(),
            rows: operation.rows,
            task: operation.task,
            tid: operation.tid,
            sqlstate: operation.sqlstate,
            sight: operation.sight,
            ending: operation.ending,
        }
    }

    pub(super) fn span(&self, clock: &Clock, scope: &InstrumentationScope) -> SpanData {
        let parent = match self.relation {
            Relation::Child(parent) => SpanId::from_bytes(parent.span_id),
            Relation::Linked(_) | Relation::Root => SpanId::INVALID,
        };
        let mut links = SpanLinks::default();
        if let Relation::Linked(to) = self.relation {
            links.links.push(Link::new(context(to), Vec::new(), 0));
        }
        let parts = SpanParts {
            ids: self.ids,
            parent,
            remote: false,
            kind: SpanKind::Client,
            name: self.name(),
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            attributes: self.attributes(),
            // `db.response.status_code` says the rest.
            status: if self.ending == Ending::Failed { Status::error("") } else { Status::Unset },
            links,
        };
        parts.span(clock, scope)
    }

    /// The summary; where nobody knows the statement, the database's host, as the conventions fall back.
    fn name(&self) -> Cow<'static, str> {
        let Statement { summary, operation, .. } = &*self.statement;
        match [summary, operation].into_iter().find(|text| !text.is_empty()) {
            Some(text) => Cow::Owned(text.to_string()),
            None => match (&self.namespace, self.addresses) {
                (Some(namespace), _) => Cow::Owned(namespace.to_string()),
                (None, Some((_, server))) => Cow::Owned(server.to_string()),
                (None, None) => Cow::Borrowed(self.system.as_str()),
            },
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut list = Vec::with_capacity(24);
        let mut add = |key: &'static str, value: Value| list.push(KeyValue::new(key, value));
        let statement = &*self.statement;
        add("db.system.name", self.system.as_str().into());
        if matches!(statement.knowledge, Knowledge::Whole | Knowledge::Truncated) {
            let texts = [("db.query.text", &statement.text), ("db.query.summary", &statement.summary)];
            for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                add(key, Arc::clone(text).into());
            }
            add(FINGERPRINT, fingerprint(statement));
        }
        if let Some(known) = knowledge(statement.knowledge) {
            add(KNOWLEDGE, known.into());
        }
        if !statement.operation.is_empty() {
            add("db.operation.name", Arc::clone(&statement.operation).into());
        }
        if let Some(collection) = &statement.collection {
            add("db.collection.name", Arc::clone(collection).into());
        }
        if let Some(namespace) = &self.namespace {
            add("db.namespace", Arc::clone(namespace).into());
        }
        let state = self.sqlstate.as_ref().and_then(|state| std::str::from_utf8(state).ok());
        if let Some(state) = state {
            add("db.response.status_code", state.to_owned().into());
        }
        if self.ending == Ending::Failed {
            // The conventions' value where no class of the error is known.
            add("error.type", state.map_or_else(|| "_OTHER".into(), |state| state.to_owned().into()));
        }
        if let Some(rows) = self.rows {
            add(if affects(&statement.operation) { AFFECTED_ROWS } else { "db.response.returned_rows" }, count(rows));
        }
        if let Some((_, server)) = self.addresses {
            add("server.address", ip(server).into());
            add("server.port", i64::from(server.port()).into());
            add("network.peer.address", ip(server).into());
            add("network.peer.port", i64::from(server.port()).into());
        }
        add("thread.id", i64::from(self.tid).into());
        if self.task != 0 {
            add(TASK_ID, count(self.task));
        }
        let sight = match self.sight {
            Sight::SeaOrm => "sea_orm",
            Sight::Sqlx => "sqlx",
            Sight::Wire => "wire",
            Sight::Opaque => "opaque",
        };
        add(SIGHT, sight.into());
        if let Some(wait) = self.pool_wait_ns {
            add(POOL_WAIT, seconds(wait));
        }
        if let Some(time) = self.first_byte_ns {
            add(TIME_TO_FIRST_BYTE, seconds(time));
        }
        match self.ending {
            Ending::Complete | Ending::Failed => {}
            Ending::Cancelled => add(DATABASE_OUTCOME, "cancelled".into()),
            Ending::Incomplete => add(DATABASE_OUTCOME, "incomplete".into()),
        }
        list
    }
}

/// Whether the number of rows of such a statement is that of rows it changed.
fn affects(operation: &str) -> bool {
    matches!(operation, "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY")
}

/// What of a statement is not known.
const fn knowledge(knowledge: Knowledge) -> Option<&'static str> {
    match knowledge {
        Knowledge::Whole => None,
        Knowledge::Truncated => Some("truncated"),
        Knowledge::Unknown => Some("unknown"),
        Knowledge::Opaque => Some("opaque"),
    }
}

/// As the daemon prints fingerprints everywhere: OTLP has no unsigned number.
pub(super) fn fingerprint(statement: &Statement) -> Value {
    format!("{:016x}", statement.fingerprint).into()
}

/// A wait for a pooled connection on its way to the exporter.
#[derive(Debug)]
pub(super) struct WaitRecord {
    pub ids: TraceIds,
    /// Span of the request.
    pub parent: TraceIds,
    pub resource: Arc<TargetResource>,
    system: System,
    addresses: Option<(SocketAddr, SocketAddr)>,
    start_ns: u64,
    end_ns: u64,
    task: u64,
    tid: u32,
}

impl WaitRecord {
    pub(super) fn new(
        ids: TraceIds,
        parent: TraceIds,
        resource: Arc<TargetResource>,
        operation: &Operation<'_>,
    ) -> Self {
        Self {
            ids,
            parent,
            resource,
            system: operation.system,
            addresses: operation.addresses,
            start_ns: operation.call_ns,
            end_ns: operation.start_ns,
            task: operation.task,
            tid: operation.tid,
        }
    }

    pub(super) fn span(&self, clock: &Clock, scope: &InstrumentationScope) -> SpanData {
        let mut attributes = vec![KeyValue::new("db.system.name", self.system.as_str())];
        if let Some((_, server)) = self.addresses {
            attributes.push(KeyValue::new("server.address", ip(server)));
            attributes.push(KeyValue::new("server.port", i64::from(server.port())));
        }
        attributes.push(KeyValue::new("thread.id", i64::from(self.tid)));
        if self.task != 0 {
            attributes.push(KeyValue::new(TASK_ID, count(self.task)));
        }
        let parts = SpanParts {
            ids: self.ids,
            parent: SpanId::from_bytes(self.parent.span_id),
            remote: false,
            kind: SpanKind::Internal,
            name: Cow::Borrowed(WAIT),
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            attributes,
            status: Status::Unset,
            links: SpanLinks::default(),
        };
        parts.span(clock, scope)
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
pub(super) mod tests;
