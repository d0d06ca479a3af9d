//! `[database]` and `[errors]`: how queries are observed, and to whom errors belong.
//!
//! Reads: tables of the file; the single keys are in [`super::keys`]. Yields: checked settings. Costs: once at start.

use super::error::{Problem, nearest};
use super::value::article;
use super::{Choice, Pairs};
use toml::de::{DeTable, DeValue};

/// `[database]`: observation of queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Whether queries are observed at all.
    pub enabled: bool,
    /// Bytes captured of one statement's text.
    pub statement_bytes: usize,
    /// Statements with series of their own; more are `~other`, counted.
    pub statements: usize,
    /// A request that runs one statement more often repeats it (N+1).
    pub repeated: usize,
    /// Ports that speak PostgreSQL where neither bytes nor symbols tell.
    pub ports: Vec<u16>,
    /// Which sets of uprobes are attached.
    pub probes: ProbeSets,
    /// Probe points of the user.
    pub probe: Vec<ProbePoint>,
}

impl Database {
    /// Bounds of [`Self::statement_bytes`].
    pub const STATEMENT_BYTES: std::ops::RangeInclusive<usize> = 256..=16_384;
}

impl Default for Database {
    fn default() -> Self {
        Self {
            enabled: true,
            statement_bytes: *Self::STATEMENT_BYTES.end(),
            statements: 500,
            repeated: crate::trace::REPEATED as usize,
            ports: vec![5432],
            probes: ProbeSets::default(),
            probe: Vec::new(),
        }
    }
}

/// Sets of uprobes, each with its own use and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four")]
pub struct ProbeSets {
    /// Calls of sea-orm: statements, and the start of waits for a connection.
    pub sea_orm: bool,
    /// Calls of sqlx: statements and transactions.
    pub sqlx: bool,
    /// Ends, rows and errors of operations, as sqlx decodes them.
    pub results: bool,
    /// Parents of tasks, as Tokio spawns them.
    pub tasks: bool,
}

impl Default for ProbeSets {
    fn default() -> Self {
        Self { sea_orm: true, sqlx: true, results: true, tasks: true }
    }
}

impl ProbeSets {
    /// All names.
    pub const NAMES: [&str; 4] = ["sea-orm", "sqlx", "results", "tasks"];

    /// None of them.
    #[must_use]
    pub const fn none() -> Self {
        Self { sea_orm: false, sqlx: false, results: false, tasks: false }
    }

    /// Each name, and whether its set is on.
    #[must_use]
    pub const fn all(self) -> [(&'static str, bool); 4] {
        let [sea_orm, sqlx, results, tasks] = Self::NAMES;
        [(sea_orm, self.sea_orm), (sqlx, self.sqlx), (results, self.results), (tasks, self.tasks)]
    }

    /// Turns one on; false where there is none of that name.
    pub(super) fn turn_on(&mut self, name: &str) -> bool {
        let set = match name {
            "sea-orm" => &mut self.sea_orm,
            "sqlx" => &mut self.sqlx,
            "results" => &mut self.results,
            "tasks" => &mut self.tasks,
            _ => return false,
        };
        *set = true;
        true
    }
}

/// `[[database.probe]]`: a function of the target, or of a library in it, that begins an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbePoint {
    /// Demangled path, without the hash behind it.
    pub function: String,
    /// What a call of it means.
    pub kind: ProbeKind,
    /// Which argument points at the statement, or at its text, from 0; 0 for kinds that have none.
    pub argument: u8,
}

super::choice! {
    /// What a call of a user's function means.
    ProbeKind {
        /// An operation begins; an argument points at a struct that holds its text.
        #[default]
        Statement = "statement",
        /// An operation begins; an argument points at its text, and the next one is the text's length.
        Text = "text",
        /// A transaction begins.
        Begin = "begin",
        /// A transaction is committed.
        Commit = "commit",
        /// A transaction is rolled back.
        Rollback = "rollback",
    }
}

impl ProbeKind {
    /// Whether an argument leads to the text.
    #[must_use]
    pub const fn has_argument(self) -> bool {
        matches!(self, Self::Statement | Self::Text)
    }
}

/// Keys of a `[[database.probe]]` table with an example and one sentence each.
pub const PROBE_KEYS: &[(&str, &str, &str)] = &[
    (
        "function",
        "\"shop::store::Store::query\"",
        "Demangled Rust path of a function, without the hash behind it; every copy of it is a probe point.",
    ),
    (
        "kind",
        "\"text\"",
        "What a call means: `statement` or `text` (an operation begins), `begin`, `commit` or `rollback` (of a transaction; name all three, or the next `begin` of the task counts as a savepoint).",
    ),
    (
        "argument",
        "1",
        "Which argument, from 0 to 5: for `statement` the pointer at the struct that holds the SQL text, for `text` the pointer at the text, its length being the next.",
    ),
];

/// The longest path of a function.
const LONGEST_FUNCTION: usize = 512;

impl ProbePoint {
    /// Reads one table, adding every problem; `at` names the place of a byte offset.
    pub(super) fn read(
        table: &DeTable<'_>,
        at: &dyn Fn(usize) -> String,
        start: usize,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut point = Self::default();
        let mut given = [false; 3];
        let before = problems.len();
        for (name, value) in table {
            let index = PROBE_KEYS.iter().position(|(key, ..)| key == name.get_ref());
            match index.map_or_else(|| Err(unknown(name.get_ref())), |_| point.set(name.get_ref(), value.get_ref())) {
                Ok(()) => {}
                Err(message) => {
                    let key = format!("database.probe.{}", name.get_ref());
                    problems.push(Problem { place: at(name.span().start), key, message });
                }
            }
            if let Some(index) = index {
                given[index] = true;
            }
        }
        let mut refuse = |message: String| {
            problems.push(Problem { place: at(start), key: "database.probe".into(), message });
        };
        let [function, kind, argument] = given;
        if !function {
            refuse("names no `function`; required: its demangled Rust path, as `rustok-obsd probes` prints it".into());
        }
        if !kind {
            refuse(format!("has no `kind`; required: one of {}", kinds()));
        } else if problems.len() == before {
            let name = point.kind.name();
            if point.kind.has_argument() && !argument {
                problems.push(Problem {
                    place: at(start),
                    key: "database.probe".into(),
                    message: format!("has no `argument`; required for the kind `{name}`: which one, from 0 to 5"),
                });
            } else if !point.kind.has_argument() && argument {
                problems.push(Problem {
                    place: at(start),
                    key: "database.probe".into(),
                    message: format!(
                        "has an `argument`, which the kind `{name}` does not use; leave it out, or choose `statement` or `text`"
                    ),
                });
            }
        }
        // The text's length is the argument behind it, and only six are in registers.
        if problems.len() == before && point.kind == ProbeKind::Text && point.argument == 5 {
            problems.push(Problem {
                place: at(start),
                key: "database.probe.argument".into(),
                message: "`5` is not allowed for the kind `text`, whose length is the argument behind it; allowed: a \
                          whole number from 0 to 4"
                    .into(),
            });
        }
        point
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>) -> Result<(), String> {
        match (name, value) {
            ("function", DeValue::String(text)) => self.function = check_function(text)?,
            ("function", other) => return Err(format!("is {}; allowed: text", article(other))),
            ("kind", DeValue::String(text)) => {
                if !self.kind.select(text) {
                    return Err(format!("`{text}` is not allowed; allowed: {}", kinds()));
                }
            }
            ("kind", other) => return Err(format!("is {}; allowed: {}", article(other), kinds())),
            (_, DeValue::Integer(number)) => {
                let parsed = u8::from_str_radix(&number.as_str().replace('_', ""), number.radix());
                self.argument = parsed.ok().filter(|index| *index <= 5).ok_or_else(|| {
                    format!("`{}` is not allowed; allowed: a whole number from 0 to 5", number.as_str())
                })?;
            }
            (_, other) => return Err(format!("is {}; allowed: a whole number from 0 to 5", article(other))),
        }
        Ok(())
    }
}

fn kinds() -> String {
    let names: Vec<String> = ProbeKind::default().names().iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn unknown(name: &str) -> String {
    let names = || PROBE_KEYS.iter().map(|(name, ..)| *name);
    let hint = nearest(name, names()).map_or(String::new(), |near| format!(" did you mean `{near}`?"));
    format!("unknown key;{hint} allowed: {}", names().collect::<Vec<_>>().join(", "))
}

fn check_function(text: &str) -> Result<String, String> {
    let allowed = "allowed: a demangled Rust path such as `shop::store::Store::query`";
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_FUNCTION || text.chars().any(char::is_control) {
        return Err(format!("is empty, longer than {LONGEST_FUNCTION} bytes or no text; {allowed}"));
    }
    if !text.contains("::") {
        return Err(format!("`{text}` has no `::`; {allowed}"));
    }
    let last = text.rsplit("::").next().unwrap_or_default();
    let hash = last.strip_prefix('h').is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if hash {
        return Err(format!("`{text}` ends with a hash, which every build changes; {allowed}, without `::{last}`"));
    }
    if text.starts_with("_ZN") || text.starts_with("_R") {
        return Err(format!("`{text}` is a mangled name; {allowed}"));
    }
    Ok(text.to_owned())
}

/// `[errors]`: to whom errors belong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    /// Name of a module by the prefix of its routes: `module` of `rustok_errors_total`. The longest prefix counts.
    pub modules: Pairs,
}
