//! Statements with marks in every place where a literal or a comment can stand, and in some where none can: a database's
//! own scanner says which marks it hides, and the daemon must hide those at least.
//!
//! Most statements are right; some are broken a little, since it is at the edges that two readers differ.

use rustok_obsd::statement::{Dialect, Statement};
use std::time::{Duration, Instant};

/// Xorshift: the same seed gives the same statements.
pub struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// One of these.
    pub fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What a database can write.
pub struct Flavour {
    /// Shapes of strings; one `%` in each is what is inside.
    pub strings: &'static [&'static str],
    /// Shapes of comments.
    pub comments: &'static [&'static str],
    /// Operands that are neither.
    pub others: &'static [&'static str],
}

/// A statement, and the marks in it.
#[derive(Debug)]
pub struct Marked {
    /// Its text.
    pub sql: String,
    /// Each is there once, but for what breaking it did.
    pub marks: Vec<String>,
}

/// Writes statements.
pub struct Generator<'f> {
    /// For decisions.
    pub dice: Dice,
    flavour: &'f Flavour,
    marks: Vec<String>,
    until: Instant,
}

impl<'f> Generator<'f> {
    /// As the environment says.
    #[must_use]
    pub fn new(flavour: &'f Flavour) -> Self {
        let seed = variable("RUSTOK_OBSD_FUZZ_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let seconds = variable("RUSTOK_OBSD_FUZZ_SECONDS", 20);
        let until = Instant::now() + Duration::from_secs(seconds);
        Self { dice: Dice(seed), flavour, marks: Vec::new(), until }
    }

    /// A number that is a mark.
    fn number(&mut self) -> String {
        let mark = format!("{}", 9_170_000 + self.marks.len());
        self.marks.push(mark.clone());
        mark
    }

    fn mark(&mut self) -> String {
        if self.dice.below(3) == 0 {
            return self.number();
        }
        let mark = format!("zq{}x", self.marks.len());
        self.marks.push(mark.clone());
        mark
    }

    fn inner(&mut self) -> String {
        let pieces = self.dice.below(5);
        (0..=pieces)
            .map(|_| match self.dice.below(3) {
                0 => self.mark(),
                _ => self
                    .dice
                    .one(&[
                        "\\", "\\\\", "''", "\"\"", "\\'", "\\\"", "--", "-- ", "#", "/*", "*/", "/*!", "$$", "$a$",
                        "\n", "\r", " ", ";", "`", "[", "]", "(", ")", ",", "?", ":", "@", "a", "é", "'", "\"",
                    ])
                    .to_owned(),
            })
            .collect()
    }

    fn operand(&mut self) -> String {
        match self.dice.below(8) {
            0 => self.dice.one(self.flavour.others).to_owned(),
            1 => format!("{}{}", self.dice.one(&["", "-", "+", "1.", ".", "1e-", "0x"]), self.number()),
            2 => {
                let (comment, inner) = (self.dice.one(self.flavour.comments), self.inner());
                format!("a {} = {}", comment.replace('%', &inner), self.dice.one(self.flavour.others))
            }
            3 => {
                // Clean inside, so that the rest is read.
                let mark = self.mark();
                self.dice.one(self.flavour.strings).replace('%', &mark)
            }
            _ => {
                let inner = self.inner();
                self.dice.one(self.flavour.strings).replace('%', &inner)
            }
        }
    }

    /// The next statement, until the time is over.
    pub fn next(&mut self) -> Option<Marked> {
        if Instant::now() > self.until {
            return None;
        }
        self.marks.clear();
        let count = 1 + self.dice.below(4);
        let mut list = Vec::new();
        for _ in 0..count {
            let operand = self.operand();
            let glue = self.dice.one(&[" = ", "=", " - ", " + ", "*", " AND ", " LIKE ", " ESCAPE ", " ", "\n"]);
            let operand = if self.dice.below(3) == 0 { operand + glue + &self.operand() } else { operand };
            list.push(operand);
        }
        let list = list.join(", ");
        let mut sql = match self.dice.below(6) {
            0 => format!("INSERT INTO t (a) VALUES ({list})"),
            1 => format!("UPDATE t SET a = {list} WHERE a = 1"),
            2 => format!("DELETE FROM t WHERE a IN ({list})"),
            3 => format!("SELECT {list} FROM t"),
            _ => format!("SELECT a FROM t WHERE a IN ({list})"),
        };
        if self.dice.below(3) == 0 {
            self.break_it(&mut sql);
        }
        let marks = self.marks.iter().filter(|mark| sql.contains(mark.as_str())).cloned().collect();
        Some(Marked { sql, marks })
    }

    fn break_it(&mut self, sql: &mut String) {
        let mut at = self.dice.below(sql.len());
        while !sql.is_char_boundary(at) {
            at -= 1;
        }
        if self.dice.below(2) == 0 {
            sql.insert_str(
                at,
                self.dice.one(&["'", "\"", "\\", "`", "$", "--", "/*", "*/", "\n", "#", "[", "]", "E'", "$a$", "''"]),
            );
        } else {
            sql.remove(at);
        }
    }
}

/// The marks that the daemon shows of a text though they are among these.
#[must_use]
pub fn leaks<'m>(sql: &str, dialect: Dialect, hidden: &'m [String]) -> Vec<&'m String> {
    let statement = Statement::analyse(sql.as_bytes(), false, dialect);
    let collection = statement.collection.as_deref().unwrap_or("");
    let told = [&*statement.text, &statement.summary, &statement.operation, collection].join("\n");
    hidden.iter().filter(|mark| told.contains(mark.as_str())).collect()
}
