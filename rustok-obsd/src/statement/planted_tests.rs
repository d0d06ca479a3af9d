//! Secrets planted wherever a literal can stand, in each database's ways of writing one: none of them leaves.
//!
//! The generator is seeded, so that each run is the same.

use super::{Dialect, Statement};

/// Xorshift: enough for tests.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

/// A database as a writer knows it, and what the daemon may know of it.
struct Writer {
    /// Shapes of strings; S stands for what is in them, which has no quote of this shape in it.
    strings: &'static [&'static str],
    /// A backslash escapes in the plain ones.
    escapes: bool,
    comments: &'static [&'static str],
    parameters: &'static [&'static str],
    names: &'static [&'static str],
    read_as: &'static [Dialect],
}

const WRITERS: [Writer; 5] = [
    Writer {
        strings: &["'S'", "E'S'", "e'S'", "$$S$$", "$q$S$q$", "U&'S'", "N'S'", "'a'\n 'S'", "B'S'", "date 'S'"],
        escapes: false,
        comments: &["-- S\n", "/* S */", "/* /* S */ S */"],
        parameters: &["$1", "$22"],
        names: &["a", "\"b\"", "s.t", "\"s\".\"t\"", "x::text", "\"'\""],
        read_as: &[Dialect::POSTGRES_STANDARD, Dialect::POSTGRES, Dialect::ANY],
    },
    Writer {
        strings: &["'S'", "E'S'", "$$S$$", "$q$S$q$", "'a'\n 'S'"],
        escapes: true,
        comments: &["-- S\n", "/* S */"],
        parameters: &["$1"],
        names: &["a", "\"b\"", "s.t"],
        read_as: &[Dialect::POSTGRES_ESCAPES, Dialect::POSTGRES, Dialect::ANY],
    },
    Writer {
        strings: &["'S'", "\"S\"", "N'S'", "_utf8'S'", "_latin1 \"S\"", "'a' \"S\"", "DATE \"S\"", "X'S'"],
        escapes: true,
        comments: &["# S\n", "-- S\n", "/* S */", "/*! S */", "--\tS\n"],
        parameters: &["?", "@v", "@@w"],
        names: &["a", "`b`", "s.t", "`s`.`t`", "`'`", "`\"`"],
        read_as: &[Dialect::MYSQL_STRINGS, Dialect::MYSQL, Dialect::ANY],
    },
    Writer {
        strings: &["'S'", "N'S'", "_utf8'S'", "X'S'"],
        escapes: false,
        comments: &["# S\n", "-- S\n", "/* S */"],
        parameters: &["?"],
        names: &["a", "`b`", "\"b\"", "s.t", "\"'\""],
        read_as: &[Dialect::MYSQL_ANSI, Dialect::MYSQL, Dialect::ANY],
    },
    Writer {
        strings: &["'S'", "\"S\"", "x'S'"],
        escapes: false,
        comments: &["-- S\n", "/* S */", "/* /* S */"],
        parameters: &["?", "?1", ":n", "@n", "$n"],
        names: &["a", "`b`", "[c d]", "\"s\".\"t\"", "s.t", "[']", "`\"`"],
        read_as: &[Dialect::SQLITE, Dialect::SQLITE.or(Dialect::POSTGRES_STANDARD), Dialect::ANY],
    },
];

/// What the secrets are made of, and nothing else is.
const MARK: &str = "zq";

impl Writer {
    /// A literal with a secret in it.
    fn literal(&self, dice: &mut Dice) -> String {
        match dice.below(6) {
            0 => return format!("{}", 700_000 + dice.below(99_999)),
            1 => return format!("{}7{}.{}e-7", dice.one(&["-", "+", ""]), dice.below(999), dice.below(99)),
            2 => return format!("0x7{:x}", dice.below(999)),
            _ => {}
        }
        let shape = dice.one(self.strings);
        let inner: String = (0..dice.below(5)).map(|_| self.inner(shape, dice)).collect();
        shape.replace('S', &format!("{MARK}{inner}{MARK}"))
    }

    /// A piece of a string that does not end it.
    fn inner(&self, shape: &str, dice: &mut Dice) -> String {
        let dollars = shape.starts_with('$');
        let quote = if shape.contains('"') { "\"" } else { "'" };
        // In these a doubled quote ends one string and begins another one.
        let digits = matches!(shape, "B'S'" | "X'S'" | "x'S'");
        let escapes =
            !dollars && !digits && (self.escapes || shape.starts_with(['E', 'e'])) && !shape.starts_with("U&");
        let piece = dice.one(&[
            "DOUBLE", "ESCAPED", "\\", "OTHER", " ", "\n", "--", " -- ", "#", "/*", "*/", "/*!", "[", "]", "`", ";",
            "(", ")", ",", " FROM ", " ESCAPE ", "zq", "?", ":", "@", "%", "é",
        ]);
        match piece {
            "DOUBLE" if dollars => "'".to_owned(),
            "DOUBLE" => quote.repeat(2),
            "ESCAPED" if escapes => format!("\\{quote}"),
            "ESCAPED" => String::new(),
            "\\" if escapes => "\\\\".to_owned(),
            "OTHER" if dollars || quote == "'" => "\"".to_owned(),
            "OTHER" => "'".to_owned(),
            other => other.to_owned(),
        }
    }

    fn comment(&self, dice: &mut Dice) -> String {
        match dice.below(4) {
            0 => format!(" {} ", dice.one(self.comments).replace('S', &format!("{MARK} it's \"{MARK}\" `"))),
            1 => format!(" {}", dice.one(self.comments).replace('S', MARK)),
            _ => " ".to_owned(),
        }
    }

    fn operand(&self, dice: &mut Dice) -> String {
        match dice.below(6) {
            0 => dice.one(self.names).to_owned(),
            1 => dice.one(self.parameters).to_owned(),
            2 => dice.one(&["TRUE", "false", "NULL", "f(a)", "count(*)"]).to_owned(),
            _ => self.literal(dice),
        }
    }

    fn expression(&self, dice: &mut Dice) -> String {
        let (a, b) = (self.operand(dice), self.operand(dice));
        let list: Vec<_> = (0..1 + dice.below(3)).map(|_| self.operand(dice)).collect();
        match dice.below(8) {
            0 => format!("a IN ({})", list.join(", ")),
            1 => format!("a BETWEEN {a} AND {b}"),
            2 => format!("f({})", list.join(",")),
            3 => format!("CASE WHEN {a} = {b} THEN {a} ELSE {b} END"),
            4 => format!("a LIKE {} ESCAPE '!'", self.literal(dice)),
            5 => format!("({a} || {b})"),
            _ => format!("{a}{}{}{b}", dice.one(&[" = ", "=", " <> ", ">=", " - ", " + "]), self.comment(dice)),
        }
    }

    fn statement(&self, dice: &mut Dice) -> String {
        let (name, c) = (dice.one(self.names), self.comment(dice));
        let (a, b, literal) = (self.expression(dice), self.expression(dice), self.literal(dice));
        let word = format!("{MARK}{}", dice.below(9));
        match dice.below(14) {
            0..=2 => format!("SELECT {a},{c}{b} AS x FROM {name}{c}WHERE {b} ORDER BY 1 LIMIT {literal}"),
            3 | 4 => format!("INSERT INTO {name}{c}(p, q) VALUES ({a}, {literal}), ({b}, {literal})"),
            5 | 6 => format!("UPDATE {name} SET p = {literal}, q ={c}{a} WHERE {b}"),
            7 => format!("DELETE FROM {name}{c}WHERE {a} AND {b}"),
            8 => format!("SET {}{} = {word}", dice.one(&["", "LOCAL ", "SESSION "]), "a.b.c.d.e"),
            9 => format!("SET LOCAL a.b TO {literal}, {word}"),
            10 => format!("ALTER ROLE r {}", dice.one(&["SET p.q = %", "SET p TO %, %"]).replace('%', &word)),
            11 => format!("WITH w AS{c}(SELECT {a} FROM {name}) SELECT * FROM w JOIN u ON {b}"),
            12 => format!("CREATE USER r PASSWORD {literal};{c}COMMENT ON TABLE t IS {literal}"),
            _ => format!("BEGIN; SELECT {a};{c}DO {literal}; CALL p({literal}, {b})"),
        }
    }
}

#[test]
fn no_planted_secret_leaves() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut shown = 0;
    for _ in 0..4_000 {
        for writer in &WRITERS {
            let sql = writer.statement(&mut dice);
            let end = (0..=dice.below(sql.len())).rev().find(|end| sql.is_char_boundary(*end)).unwrap_or(0);
            for dialect in writer.read_as {
                let whole = Statement::analyse(sql.as_bytes(), false, *dialect);
                let cut = Statement::analyse(&sql.as_bytes()[..end], true, *dialect);
                for statement in [&whole, &cut] {
                    let collection = statement.collection.as_deref().unwrap_or("");
                    for told in [&*statement.text, &statement.summary, &statement.operation, collection] {
                        // The digits of literals begin with a 7; parameters and names have none.
                        assert!(!told.contains(MARK) && !told.contains('7'), "{told:?} of {sql:?} by {dialect:?}");
                    }
                }
                // Hiding all would be easy.
                shown += usize::from(!whole.text.ends_with("...") && whole.text.len() > 12);
            }
        }
    }
    assert!(shown > 30_000, "{shown} of 60000 texts were shown whole");
}
