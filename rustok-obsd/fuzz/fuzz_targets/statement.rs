//! Whatever the text, whole or cut: no panic, no long summary, and the cache says the same as the analysis.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustok_obsd::statement::{Statement, StatementCache};

fuzz_target!(|sql: &[u8]| {
    let mut cache = StatementCache::new(2, 1 << 16);
    for truncated in [false, true] {
        let statement = Statement::analyse(sql, truncated);
        assert!(statement.summary.len() <= 255);
        assert!(!statement.query_type().is_empty());
        for _ in 0..2 {
            assert_eq!(*cache.get(sql, truncated), statement);
        }
    }
    // A literal in the middle of anything that does not open a quote or comment before it, nor has it in a name.
    let holds = |part: &[u8]| sql.windows(part.len()).any(|window| window == part);
    if !sql.iter().any(|byte| b"'\"`$\\/-".contains(byte)) && !holds(b"zqz") && !holds(b"2718") {
        let marked = [sql, b" 'zqzqzq' 271828182 ", sql].concat();
        let statement = Statement::analyse(&marked, false);
        for told in [&statement.text, &statement.summary] {
            assert!(!told.contains("zqzqzq") && !told.contains("271828182"));
        }
    }
});
