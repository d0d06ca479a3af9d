//! What a statement does to which tables (`db.operation.name`, `db.collection.name`, `db.query.summary`).
//!
//! Reads: the tokens that are kept, so that a cut or foreign text gives what can be said of it. Yields: an
//! [`Outline`]. Costs: one pass.
//!
//! Operations and tables come in the order of the text, as the semantic conventions want it. The collection is told
//! where the statement writes to one table, or all it reads is one table; else it has none.

use super::token::{Kind, Token};

/// What is said of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) operation: String,
    pub(super) collection: Option<String>,
    pub(super) summary: String,
}

/// The longest summary, bytes; it is cut between names only.
const SUMMARY: usize = 255;

/// Outlines a text of one or several statements.
pub(super) fn outline(sql: &str, tokens: &[Token]) -> Outline {
    let mut whole = Outline::default();
    let mut statements = 0;
    for statement in split(tokens) {
        let one = Scan::run(sql, statement);
        statements += 1;
        if statements == 1 {
            whole = one;
            continue;
        }
        if whole.operation != one.operation {
            whole.operation.clear();
        }
        if whole.collection != one.collection {
            whole.collection = None;
        }
        if whole.summary != one.summary {
            add(&mut whole.summary, &one.summary);
        }
    }
    if statements > 1 {
        for text in [&mut whole.operation, &mut whole.summary] {
            let rest = std::mem::replace(text, "BATCH".to_owned());
            add(text, &rest);
        }
    }
    whole
}

/// Statements, separated by semicolons outside of parentheses.
fn split(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    let mut depth = 0_i32;
    tokens
        .split(move |token| {
            match token.kind {
                Kind::Punct(b'(') => depth += 1,
                Kind::Punct(b')') => depth -= 1,
                _ => {}
            }
            token.is(b';') && depth <= 0
        })
        .filter(|statement| !statement.is_empty())
}

/// Appends words as far as they fit.
fn add(summary: &mut String, words: &str) {
    if !words.is_empty() && summary.len() + 1 + words.len() <= SUMMARY {
        if !summary.is_empty() {
            summary.push(' ');
        }
        summary.push_str(words);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verb {
    #[default]
    None,
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    /// CREATE INDEX, TRIGGER, POLICY, RULE: the table comes behind ON.
    On,
    /// Those whose tables come at once, separated by commas: TRUNCATE, LOCK.
    List,
    /// One table comes at once: COPY, CREATE TABLE, DROP VIEW.
    One,
    /// Another statement follows: EXPLAIN, PREPARE … AS, DECLARE … FOR.
    Wraps,
    Other,
}

/// A level of parentheses.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    verb: Verb,
    /// In the list of tables that are read.
    from: bool,
    /// A table's name comes next.
    expects: bool,
    /// A statement may begin here.
    fresh: bool,
    /// Changes may begin here, too: at the top and in WITH.
    writes: bool,
    /// In the list of WITH, and a name comes next there.
    with: bool,
    expects_cte: bool,
    /// USING named what DELETE or MERGE read.
    using: bool,
}

struct Scan<'t> {
    sql: &'t str,
    tokens: &'t [Token],
    out: Outline,
    full: bool,
    /// Tables named, each once.
    tables: Vec<String>,
    /// The table that the statement writes to.
    written: Option<String>,
    /// It writes to several.
    several: bool,
    ctes: Vec<&'t str>,
    levels: Vec<Level>,
    level: Level,
}

impl<'t> Scan<'t> {
    fn run(sql: &'t str, tokens: &'t [Token]) -> Outline {
        let mut scan = Self {
            sql,
            tokens,
            out: Outline::default(),
            full: false,
            tables: Vec::new(),
            written: None,
            several: false,
            ctes: Vec::new(),
            levels: Vec::new(),
            level: Level { fresh: true, writes: true, ..Level::default() },
        };
        let mut at = 0;
        while at < tokens.len() {
            at = scan.step(at);
        }
        scan.out.collection = match (scan.written, &mut scan.tables[..]) {
            (written @ Some(_), _) if !scan.several => written,
            (None, [table]) if !scan.several => Some(std::mem::take(table)),
            _ => None,
        };
        scan.out
    }

    /// Looks at the token at `at`; returns where to go on.
    fn step(&mut self, at: usize) -> usize {
        let token = self.tokens[at];
        match token.kind {
            Kind::Punct(b'(') => {
                let Level { expects, with, .. } = self.level;
                self.level.expects = false;
                self.levels.push(self.level);
                self.level = Level { from: expects, expects, fresh: true, writes: with, ..Level::default() };
            }
            Kind::Punct(b')') => {
                if let Some(outer) = self.levels.pop() {
                    self.level = outer;
                    self.level.fresh = outer.with || outer.verb == Verb::Wraps;
                }
            }
            Kind::Punct(b',') => {
                if self.level.with {
                    self.level.expects_cte = true;
                } else {
                    self.level.expects = self.level.from || self.level.verb == Verb::List;
                }
            }
            // Behind a dot stands a column, whatever its name.
            Kind::Word | Kind::Quoted if at > 0 && self.tokens[at - 1].is(b'.') => {}
            Kind::Quoted => return self.name(at),
            Kind::Word => return self.word(at),
            _ => self.level.expects = false,
        }
        at + 1
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(self.sql, word))
    }

    fn word(&mut self, at: usize) -> usize {
        let mut buffer = [0; 16];
        let text = self.tokens[at].text(self.sql);
        let Some(upper) = buffer.get_mut(..text.len()) else {
            return self.name(at);
        };
        upper.copy_from_slice(text.as_bytes());
        upper.make_ascii_uppercase();
        let word = std::str::from_utf8(upper).unwrap_or("");
        if self.level.expects_cte {
            return if word == "RECURSIVE" { at + 1 } else { self.name(at) };
        }
        // A column may have any name behind AS.
        if at > 0 && self.level.verb == Verb::Select && self.is(at - 1, "AS") {
            return at + 1;
        }
        let fresh = std::mem::take(&mut self.level.fresh);
        match word {
            "SELECT" => self.begin(Verb::Select, "SELECT"),
            "WITH" if fresh || self.level.verb == Verb::Insert => {
                self.level.with = true;
                self.level.expects_cte = true;
            }
            "VALUES" if fresh && self.levels.is_empty() => self.begin(Verb::Other, "VALUES"),
            "TABLE" if fresh => {
                self.begin(Verb::One, "TABLE");
                self.level.expects = true;
            }
            // In a list of CTEs: AS [NOT] MATERIALIZED.
            "AS" | "NOT" | "MATERIALIZED" if self.level.with => {}
            "AS" | "FOR" if self.level.verb == Verb::Wraps => self.level.fresh = true,
            "ANALYZE" | "VERBOSE" if fresh && self.level.verb == Verb::Wraps => self.level.fresh = true,
            _ if fresh && self.level.writes && self.command(word, at) => {
                return self.skip_modifiers(at + 1);
            }
            "FROM" => {
                // IS [NOT] DISTINCT FROM is an operator.
                let reads = matches!(self.level.verb, Verb::Select | Verb::Update | Verb::Delete);
                if reads && !(at > 0 && self.is(at - 1, "DISTINCT")) {
                    self.level.from = self.level.verb != Verb::Delete;
                    self.level.expects = true;
                }
            }
            "INTO" => self.level.expects = matches!(self.level.verb, Verb::Insert | Verb::Merge | Verb::Select),
            "USING" if matches!(self.level.verb, Verb::Delete | Verb::Merge) && !self.level.using => {
                self.level.using = true;
                self.level.from = true;
                self.level.expects = true;
            }
            "JOIN" => self.level.expects = self.level.from,
            "ON" if self.level.verb == Verb::On => {
                self.level.verb = Verb::One;
                self.level.expects = true;
            }
            "LATERAL" | "ONLY" if self.level.expects => {}
            "ROWS" if self.level.expects && self.is(at + 1, "FROM") => {
                self.level.expects = false;
                return at + 2;
            }
            "UNION" | "INTERSECT" | "EXCEPT" => {
                self.level.from = false;
                self.level.expects = false;
                self.level.fresh = true;
            }
            "WHERE" | "GROUP" | "HAVING" | "ORDER" | "LIMIT" | "OFFSET" | "FETCH" | "FOR" | "WINDOW" | "RETURNING"
            | "SET" | "WHEN" => {
                self.level.from = false;
                self.level.expects = false;
            }
            "ON" | "USING" | "VALUES" | "DEFAULT" => self.level.expects = false,
            _ => return self.name(at),
        }
        at + 1
    }

    /// Begins an operation.
    fn begin(&mut self, verb: Verb, operation: &str) {
        self.level = Level { verb, writes: self.level.writes, ..Level::default() };
        if self.levels.is_empty() && self.out.operation.is_empty() {
            operation.clone_into(&mut self.out.operation);
        }
        self.part(operation);
    }

    fn part(&mut self, part: &str) {
        let summary = &mut self.out.summary;
        self.full |= summary.len() + 1 + part.len() > SUMMARY;
        if !self.full {
            add(summary, part);
        }
    }

    /// A command other than a query begins; `false` where none does.
    fn command(&mut self, word: &str, at: usize) -> bool {
        match word {
            "INSERT" => self.begin(Verb::Insert, word),
            "DELETE" => self.begin(Verb::Delete, word),
            "MERGE" => self.begin(Verb::Merge, word),
            "UPDATE" | "COPY" => {
                self.begin(if word == "UPDATE" { Verb::Update } else { Verb::One }, word);
                self.level.expects = true;
            }
            "TRUNCATE" | "LOCK" => {
                self.begin(Verb::List, word);
                self.level.expects = true;
            }
            "EXPLAIN" | "PREPARE" | "DECLARE" => {
                self.begin(Verb::Wraps, word);
                self.level.fresh = word == "EXPLAIN";
            }
            "CALL" => {
                self.begin(Verb::Other, word);
                let (name, _) = self.path(at + 1);
                self.part(&name);
            }
            "START" => self.begin(Verb::Other, "START TRANSACTION"),
            "ROLLBACK" => {
                let rest = if self.is(at + 1, "WORK") || self.is(at + 1, "TRANSACTION") { at + 2 } else { at + 1 };
                self.begin(Verb::Other, if self.is(rest, "TO") { "ROLLBACK TO" } else { word });
            }
            "CREATE" | "ALTER" | "DROP" | "REFRESH" => self.definition(word, at + 1),
            "BEGIN" | "COMMIT" | "END" | "ABORT" | "SAVEPOINT" | "RELEASE" | "SET" | "SHOW" | "RESET" | "DISCARD"
            | "DEALLOCATE" | "EXECUTE" | "LISTEN" | "UNLISTEN" | "NOTIFY" | "VACUUM" | "ANALYZE" | "REINDEX"
            | "CLUSTER" | "CHECKPOINT" | "FETCH" | "MOVE" | "CLOSE" | "GRANT" | "REVOKE" | "COMMENT" | "DO"
            | "LOAD" | "SECURITY" | "IMPORT" | "REASSIGN" => self.begin(Verb::Other, word),
            _ => return false,
        }
        true
    }

    /// Words between a command and the table's name.
    fn skip_modifiers(&mut self, mut at: usize) -> usize {
        if self.level.expects {
            while ["TABLE", "ONLY", "IF", "NOT", "EXISTS", "CONCURRENTLY"].iter().any(|word| self.is(at, word)) {
                at += 1;
            }
        }
        at
    }

    /// CREATE, ALTER or DROP of something.
    fn definition(&mut self, verb: &str, mut at: usize) {
        const MODIFIERS: [&str; 13] = [
            "OR",
            "REPLACE",
            "GLOBAL",
            "LOCAL",
            "TEMP",
            "TEMPORARY",
            "UNLOGGED",
            "UNIQUE",
            "RECURSIVE",
            "CONSTRAINT",
            "EVENT",
            "FOREIGN",
            "MATERIALIZED",
        ];
        let mut materialized = false;
        while MODIFIERS.iter().any(|word| self.is(at, word)) {
            materialized |= self.is(at, "MATERIALIZED");
            at += 1;
        }
        const OBJECTS: [(&str, Verb); 22] = [
            ("TABLE", Verb::One),
            ("VIEW", Verb::One),
            ("INDEX", Verb::On),
            ("TRIGGER", Verb::On),
            ("POLICY", Verb::On),
            ("RULE", Verb::On),
            ("SEQUENCE", Verb::Other),
            ("SCHEMA", Verb::Other),
            ("TYPE", Verb::Other),
            ("DOMAIN", Verb::Other),
            ("FUNCTION", Verb::Other),
            ("PROCEDURE", Verb::Other),
            ("AGGREGATE", Verb::Other),
            ("EXTENSION", Verb::Other),
            ("DATABASE", Verb::Other),
            ("ROLE", Verb::Other),
            ("USER", Verb::Other),
            ("PUBLICATION", Verb::Other),
            ("SUBSCRIPTION", Verb::Other),
            ("COLLATION", Verb::Other),
            ("SERVER", Verb::Other),
            ("STATISTICS", Verb::Other),
        ];
        match OBJECTS.iter().find(|(object, _)| self.is(at, object)) {
            Some((object, kind)) => {
                let view = if materialized { " MATERIALIZED" } else { "" };
                self.begin(*kind, &format!("{verb}{view} {object}"));
                if *kind == Verb::One {
                    self.level.expects = true;
                    at = self.skip_modifiers(at + 1);
                    self.level.expects = false;
                    self.table(at);
                }
            }
            None => self.begin(Verb::Other, verb),
        }
        // Its other words name no tables, unless a query follows.
        if self.level.verb == Verb::One {
            self.level.verb = Verb::Other;
        }
    }

    /// A name, or a word that means nothing here.
    fn name(&mut self, at: usize) -> usize {
        self.level.fresh = false;
        if self.level.expects_cte {
            self.level.expects_cte = false;
            self.ctes.push(self.tokens[at].text(self.sql));
            // The query comes in parentheses behind AS.
            self.level.fresh = true;
            return at + 1;
        }
        if !self.level.expects {
            return at + 1;
        }
        self.level.expects = false;
        self.table(at)
    }

    /// Reads a table's name; returns where it ends.
    fn table(&mut self, at: usize) -> usize {
        let (name, end) = self.path(at);
        // A function, but for the columns of what is written to.
        let called = self.tokens.get(end).is_some_and(|token| token.is(b'(')) && self.level.from;
        let cte = end == at + 1 && self.ctes.iter().any(|cte| cte.eq_ignore_ascii_case(self.tokens[at].text(self.sql)));
        if name.is_empty() || called || cte && self.level.from {
            return end.max(at + 1);
        }
        self.part(&name);
        let top = self.levels.is_empty();
        let writes = match self.level.verb {
            Verb::Insert | Verb::Merge | Verb::Update | Verb::Delete => !self.level.from,
            Verb::One | Verb::List => true,
            _ => false,
        };
        if top && writes {
            self.several |= self.written.is_some();
            self.written.get_or_insert_with(|| name.clone());
        }
        if !self.tables.contains(&name) {
            self.tables.push(name);
        }
        end
    }

    /// A name with its qualifiers, without quotes where it needs none.
    fn path(&self, mut at: usize) -> (String, usize) {
        let mut name = String::new();
        while let Some(token) = self.tokens.get(at) {
            let text = token.text(self.sql);
            match token.kind {
                Kind::Word => name.push_str(text),
                Kind::Quoted => {
                    let inner = text.get(1..text.len() - 1).unwrap_or("");
                    let plain = inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                        && !inner.is_empty()
                        && !inner.starts_with(|first: char| first.is_ascii_digit());
                    name.push_str(if plain { inner } else { text });
                }
                _ => break,
            }
            at += 1;
            match (self.tokens.get(at), self.tokens.get(at + 1)) {
                (Some(dot), Some(next)) if dot.is(b'.') && matches!(next.kind, Kind::Word | Kind::Quoted) => {
                    name.push('.');
                    at += 1;
                }
                _ => break,
            }
        }
        (name, at)
    }
}
