//! The worker's statements find rows by index, whatever the planner knows.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::run;

    macro_rules! statement {
        ($name:literal) => {
            ($name, include_str!(concat!("../../../sql/statements/", $name, ".sql")))
        };
    }

    /// The plan of a statement as the worker has it: made without a look at the arguments.
    fn plan(text: &str) -> Vec<String> {
        let parameters = (1..).take_while(|n| text.contains(&format!("${n}"))).count();
        let nulls = vec!["NULL"; parameters].join(", ");
        run(&format!("PREPARE of_the_worker AS {text}"));
        let explain = format!("EXPLAIN (COSTS off) EXECUTE of_the_worker ({nulls})");
        let lines = Spi::connect(|client| {
            let rows = client.select(&explain, None, &[]).unwrap();
            rows.map(|row| row.get::<String>(1).unwrap().unwrap()).collect()
        });
        run("DEALLOCATE of_the_worker");
        lines
    }

    #[pg_test]
    fn statements_look_only_at_rows_that_they_name_even_where_there_are_no_statistics() {
        run("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off;
             SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan");
        let statements = [
            statement!("plan"),
            statement!("plan_part"),
            statement!("search"),
            statement!("fetch"),
            statement!("fetch_unreadable"),
            statement!("select"),
            statement!("settled"),
            statement!("due"),
            statement!("due_among"),
            statement!("next_due_among"),
            statement!("pending_places"),
            statement!("keys"),
        ];
        for (name, text) in statements {
            let lines = plan(text);
            let mut found = 0;
            for (line, next) in lines.iter().zip(lines.iter().skip(1)) {
                for (table, column) in [(" on outbox", "xid"), (" on delivery", "endpoint_id")] {
                    if line.contains("Scan") && line.contains(table) {
                        found += 1;
                        let is_named = next.contains("Index Cond") && next.contains(column);
                        assert!(is_named, "{name} reads too much:\n{}", lines.join("\n"));
                    }
                }
            }
            assert!(found > 0, "{name} reads nothing:\n{}", lines.join("\n"));
        }
    }
}
