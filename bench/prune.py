"""What pruning costs: events deleted per second, and how long single-row transactions take meanwhile, with and without a
transaction that holds its snapshot.

Deliveries are made up in SQL and nothing is sent: what is measured is the worker's pruning beside writers.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time

import processes
import psql

SET_UP = """
CREATE TABLE contact (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, email text);
CREATE EXTENSION webhook_pg;
SELECT webhook_attach('contact');
SELECT webhook_register('http://127.0.0.1:9/', name => 'nobody', signature => 'none');
SELECT webhook_pause(1);
"""
# Events of as many transactions as there are hundreds of rows, a day old, each delivered.
FILL = """
TRUNCATE webhook.outbox, webhook.delivery;
DO $$ BEGIN
    FOR n IN 1..{events} / 100 LOOP
        INSERT INTO webhook.outbox (xid, seq, occurred_at, id, type, key, data)
        SELECT pg_current_xact_id(), nextval('webhook.outbox_seq'), now() - interval '1 day', gen_random_uuid(), 'contact.created',
               '{{"id":1}}', '{{"id":1,"name":"Wilhelmine Featherstonehaugh","email":"wilhelmine@mail.example.com"}}'
          FROM generate_series(1, 100);
        COMMIT;
    END LOOP;
END $$;
INSERT INTO webhook.delivery (endpoint_id, xid, seq, event_id, state, attempts, created_at, finished_at, started_at, last_status)
SELECT 1, xid, seq, id, 'delivered', 1, occurred_at, occurred_at, occurred_at, 200 FROM webhook.outbox;
UPDATE webhook.position SET done = pg_current_snapshot(), upto = NULL, seq = 0;
VACUUM ANALYZE webhook.outbox, webhook.delivery;
CHECKPOINT;
"""
INSERT = "INSERT INTO contact (name, email) VALUES ('Wilhelmine Featherstonehaugh', 'wilhelmine@mail.example.com');"
OLD = "SELECT count(*) FROM webhook.outbox WHERE occurred_at < now() - interval '1 hour'"


def latencies(seconds: int, quiet: processes.QuietTimes) -> list[str]:
    """Single-row transactions, 200 a second: median and 99th percentile in ms; how many of them fell into quiet times, and their
    99th percentile."""
    with tempfile.TemporaryDirectory() as directory:
        script = pathlib.Path(directory) / "insert.sql"
        script.write_text(INSERT)
        command = ["pgbench", "-n", "-M", "prepared", "-c", "1", "-R", "200", "-T", str(seconds), "-l", "-f", str(script)]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
        log = next(pathlib.Path(directory).glob("pgbench_log.*")).read_text().splitlines()
    # Fields: client, transaction, latency in µs, script, seconds and µs of the end …
    rows = [(int(line[2]), 1_000_000 * int(line[4]) + int(line[5])) for line in map(str.split, log)]
    times = [latency / 1000 for latency, _ in rows]
    calm = [latency / 1000 for latency, end in rows if quiet.has(end - latency, end)]
    figures = [f"{psql.percentile(times, share):.2f}" for share in (0.5, 0.99)]
    return [*figures, f"{len(calm)} of {len(times)}", f"{psql.percentile(calm, 0.99):.2f}" if len(calm) >= 100 else "–"]


def keep(time_kept: str) -> None:
    psql.execute(f"ALTER SYSTEM SET webhook_pg.retention = '{time_kept}'")
    psql.execute("SELECT pg_reload_conf()")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--events", type=int, default=300_000)
    arguments.add_argument("--seconds", type=int, default=10)
    options = arguments.parse_args()
    steal, quiet = processes.Steal(), processes.QuietTimes()
    psql.execute(SET_UP)
    psql.execute(FILL.format(events=options.events))
    lines = [["nothing to prune", "", *latencies(options.seconds, quiet)]]
    for what, holds in (("pruning", False), ("pruning, with a snapshot held", True)):
        holder = subprocess.Popen(psql.PSQL, stdin=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)
        keep("7d")
        psql.execute(FILL.format(events=options.events))
        if holds:
            holder.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class;\n")
            holder.stdin.flush()
            time.sleep(1)
        before = int(psql.value(OLD))
        keep("1h")
        # A worker that found nothing looks again after a minute at most.
        psql.wait_until("the beginning of pruning", lambda: int(psql.value(OLD)) < before, 90, 0.01)
        before, started = int(psql.value(OLD)), time.monotonic()
        figures = latencies(options.seconds, quiet)
        took = time.monotonic() - started
        after = int(psql.value(OLD))
        lines.append([what, f"{(before - after) / took:,.0f}", *figures])
        psql.wait_until("the end of pruning", lambda: psql.value(OLD) == "0", 600)
        holder.stdin.close()
        holder.wait()
    print(psql.table(["", "events/s", "insert p50 ms", "p99 ms", "in quiet", "p99 ms"], lines))
    print(f"In quiet: those around which the host took nothing away. {steal}")


main()
