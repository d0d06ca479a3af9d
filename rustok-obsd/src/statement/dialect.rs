//! Which rules a statement's text is read by.
//!
//! Reads: nothing. Yields: a [`Dialect`], which is a set of readings. Costs: a byte.
//!
//! What lies inside a literal depends on the database and on settings of the session that the daemon often does not
//! see. So a dialect is not one set of rules but all those that are possible: a token leaves only where every one of
//! them shows it outside of literals and comments.

/// The readings that are possible for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialect(u8);

impl Dialect {
    /// PostgreSQL with `standard_conforming_strings` on: a backslash in `'…'` is a character.
    pub const POSTGRES_STANDARD: Self = Self(1);
    /// PostgreSQL with `standard_conforming_strings` off: a backslash in `'…'` escapes.
    pub const POSTGRES_ESCAPES: Self = Self(1 << 1);
    /// PostgreSQL, the setting unknown.
    pub const POSTGRES: Self = Self::POSTGRES_STANDARD.or(Self::POSTGRES_ESCAPES);
    /// MySQL or MariaDB where `"…"` is a string; `NO_BACKSLASH_ESCAPES` unknown.
    pub const MYSQL_STRINGS: Self = Self(1 << 2 | 1 << 4);
    /// MySQL or MariaDB with `ANSI_QUOTES`: `"…"` is a name; `NO_BACKSLASH_ESCAPES` unknown.
    pub const MYSQL_ANSI: Self = Self(1 << 3 | 1 << 5);
    /// MySQL or MariaDB, `sql_mode` unknown.
    pub const MYSQL: Self = Self::MYSQL_STRINGS.or(Self::MYSQL_ANSI);
    /// SQLite.
    pub const SQLITE: Self = Self(1 << 6);
    /// Nobody knows which: the strictest.
    pub const ANY: Self = Self::POSTGRES.or(Self::MYSQL).or(Self::SQLITE);

    /// One of the two.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// PostgreSQL, where `standard_conforming_strings` is on, off, or not known.
    #[must_use]
    pub const fn postgres(standard_strings: Option<bool>) -> Self {
        match standard_strings {
            Some(true) => Self::POSTGRES_STANDARD,
            Some(false) => Self::POSTGRES_ESCAPES,
            None => Self::POSTGRES,
        }
    }

    /// One of `other`'s readings is possible.
    #[must_use]
    pub const fn may_be(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The readings and how many they are.
    pub(super) fn readings(self) -> ([Reading; READINGS.len()], usize) {
        let (mut readings, mut count) = (READINGS, 0);
        for (bit, reading) in READINGS.into_iter().enumerate() {
            if self.0 & 1 << bit != 0 {
                readings[count] = reading;
                count += 1;
            }
        }
        (readings, count)
    }
}

/// Unknown.
impl Default for Dialect {
    fn default() -> Self {
        Self::ANY
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Postgres,
    Mysql,
    Sqlite,
}

/// What `"…"` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Double {
    /// A name. What SQLite takes for a string where it knows no such name is for [`super::names`] to decide.
    Name,
    /// A string, with a backslash as in `'…'`.
    Text,
}

/// One set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) family: Family,
    /// A backslash escapes in a string.
    pub(super) escapes: bool,
    pub(super) double: Double,
}

/// In the order of the bits.
const READINGS: [Reading; 7] = [
    Reading { family: Family::Postgres, escapes: false, double: Double::Name },
    Reading { family: Family::Postgres, escapes: true, double: Double::Name },
    Reading { family: Family::Mysql, escapes: true, double: Double::Text },
    Reading { family: Family::Mysql, escapes: true, double: Double::Name },
    Reading { family: Family::Mysql, escapes: false, double: Double::Text },
    Reading { family: Family::Mysql, escapes: false, double: Double::Name },
    Reading { family: Family::Sqlite, escapes: false, double: Double::Name },
];
