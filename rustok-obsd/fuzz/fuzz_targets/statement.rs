//! Whatever the text, whole or cut, by whatever reading: no panic, no long summary, the cache says the same as the
//! analysis, and a literal leaves by none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustok_obsd::statement::{Dialect, Statement, StatementCache};

const DIALECTS: [Dialect; 8] = [
    Dialect::POSTGRES_STANDARD,
    Dialect::POSTGRES_ESCAPES,
    Dialect::POSTGRES,
    Dialect::MYSQL_STRINGS,
    Dialect::MYSQL_ANSI,
    Dialect::MYSQL,
    Dialect::SQLITE,
    Dialect::ANY,
];

fuzz_target!(|sql: &[u8]| {
    let mut cache = StatementCache::new(2, 1 << 16);
    // A literal in the middle of anything that does not open a quote or comment before it, nor has it in a name.
    let holds = |part: &[u8]| sql.windows(part.len()).any(|window| window == part);
    let plain = !sql.iter().any(|byte| b"'\"`$\\/-#[\0".contains(byte));
    let markable = plain && std::str::from_utf8(sql).is_ok() && !holds(b"zqz") && !holds(b"2718");
    let marked = [sql, b" 'zqzqzq' 271828182 ", sql].concat();
    for dialect in DIALECTS {
        for truncated in [false, true] {
            let statement = Statement::analyse(sql, truncated, dialect);
            assert!(statement.summary.len() <= 255);
            assert!(!statement.query_type().is_empty());
            for _ in 0..2 {
                assert_eq!(*cache.get(sql, truncated, dialect), statement);
            }
        }
        if markable {
            let statement = Statement::analyse(&marked, false, dialect);
            for told in [&statement.text, &statement.summary] {
                assert!(!told.contains("zqzqzq") && !told.contains("271828182"));
            }
        }
    }
});
