"""How long from a change to its webhook at the receiver, at a steady rate of single-row transactions.

On one clock: the statement is sent (the row carries that time), the commit's own timestamp, taken before it is on disk, its
acknowledgement, and the first byte at the receiver. The schedule is fixed in advance: a slow delivery does not delay the next change.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time

import nginx
import processes
import psql
import sink

SESSIONS = 4
# Seconds whose p99 is taken: the host takes the CPU away for moments, which would make the p99 of all.
SLICE = 10
SET_UP = """
CREATE TABLE contact (
    id bigint PRIMARY KEY, sent_at_us bigint, location_id text, first_name text, last_name text, email text,
    address text, city text, state text, zip text, cell_phone text, modified_ts timestamptz);
CREATE EXTENSION webhook_pg;
SELECT webhook_attach('contact');
SELECT webhook_register(url => 'http://127.0.0.1:{port}/', events => '{{*}}', name => 'sink');
"""
INSERT = (
    "INSERT INTO contact VALUES ({id}, {now}, '23948sdnfia1129i9asf92', 'Wilhelmine', 'Featherstonehaugh',"
    " 'wilhelmine@mail.example.com', 'Lange Straße 12, rear building', 'Berlin', 'BE', '10115', '+49 30 5550100', now()) RETURNING id;\n"
)


def write(first_id: int, rate: int, seconds: int, acknowledged: dict[int, list[int]]) -> int:
    """Inserts rate × seconds rows on schedule through open sessions; returns how many, and when each commit was acknowledged."""

    def note(answers) -> None:
        for line in answers:
            acknowledged[int(line)] = [time.time_ns() // 1000]

    sessions = [
        subprocess.Popen([*psql.PSQL, "-A", "-t"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(SESSIONS)
    ]
    readers = [threading.Thread(target=note, args=(session.stdout,)) for session in sessions]
    for reader in readers:
        reader.start()
    count = rate * seconds
    started = time.monotonic() + 0.5
    for number in range(count):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        sessions[number % SESSIONS].stdin.write(INSERT.format(id=first_id + number, now=time.time_ns() // 1000))
    for session in sessions:
        session.stdin.close()
        if session.wait() != 0:
            sys.exit("a writing session failed")
    for reader in readers:
        reader.join()
    return count


def usual(waits: list[float], rate: int) -> str:
    """The median of the p99 of all slices of time."""
    size = rate * SLICE
    slices = [waits[start : start + size] for start in range(0, len(waits) - size + 1, size)]
    return f"{statistics.median(psql.percentile(part, 0.99) for part in slices):.2f}" if slices else "–"


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rates", default="50,500", help="changes per second, a list")
    arguments.add_argument("--seconds", type=int, default=20)
    arguments.add_argument("--held", action="store_true", help="a transaction that wrote, with a snapshot, stays open meanwhile")
    arguments.add_argument("--beside", type=int, default=0, help="rows that one transaction writes meanwhile, for another endpoint")
    arguments.add_argument(
        "--control", choices=["plain", "twice"],
        help="these rows are of a table that is not attached: what they cost anyway; twice: with a second INSERT of the same text",
    )
    arguments.add_argument("--backlog", type=int, default=0, help="events that wait for another endpoint, which is resumed with the first change")
    arguments.add_argument("--dead", action="store_true", help="the endpoint of --backlog refuses connections and never recovers")
    arguments.add_argument("--off", action="store_true", help="nothing is sent until all is written")
    arguments.add_argument("--hanging", type=int, default=0, help="endpoints that never answer and want everything, too")
    arguments.add_argument("--waiting", type=int, default=1000, help="events that wait for each of them already")
    arguments.add_argument("--healthy", type=int, default=0, help="endpoints beside the measured one that want the same and answer")
    arguments.add_argument("--scoped", type=int, default=0, help="endpoints that want other locations than that of the changes")
    arguments.add_argument("--updates", action="store_true", help="one of the --scoped endpoints is updated once a second meanwhile")
    options = arguments.parse_args()
    steal, quiet = processes.Steal(), processes.QuietTimes()
    receiver = sink.Sink()
    psql.execute(SET_UP.format(port=receiver.port))
    # The first delivery opens connections and fills caches: it is not counted.
    psql.execute(INSERT.format(id=0, now=0))
    delivered = "SELECT count(*) FROM webhook.deliveries WHERE state = 'delivered' AND endpoint <> 'backlog' AND endpoint NOT LIKE 'healthy%'"
    psql.wait_until("the first delivery", lambda: psql.value(delivered) == "1", 15)

    if options.scoped:
        psql.progress(f"registering {options.scoped} endpoints")
        psql.execute(
            f"""SELECT webhook_update(id, '{{"scope": {{"location_id": "23948sdnfia1129i9asf92"}}}}') FROM webhook.endpoints;
                SELECT webhook_register(url => 'http://127.0.0.1:9/', events => '{{*}}', name => 'elsewhere' || n,
                                        scope => jsonb_build_object('location_id', 'location ' || n))
                  FROM generate_series(1, {options.scoped}) n"""
        )
        # Fills the caches of all: it is delivered when the endpoints have been read.
        psql.execute(INSERT.format(id=-1, now=0))
        psql.wait_until("the first delivery among many", lambda: psql.value(delivered) == "2", 60)

    if options.healthy:
        others = sink.Sink()
        psql.execute(
            f"""SELECT webhook_register(url => 'http://127.0.0.1:{others.port}/' || n, events => '{{*}}', name => 'healthy' || n)
                  FROM generate_series(1, {options.healthy}) n"""
        )

    if options.hanging:
        port = sink.silence()
        psql.execute(
            f"""SELECT webhook_register(url => 'http://127.0.0.1:{port}/', events => '{{*}}', name => 'silent' || n, timeout => '5 s')
                  FROM generate_series(1, {options.hanging}) n;
                INSERT INTO contact (id) SELECT -n FROM generate_series(100, {99 + options.waiting}) n"""
        )
        psql.wait_until("the backlog of the others", lambda: int(psql.value(delivered)) > options.waiting, 60 + options.waiting / 1000)

    if options.held:
        held = subprocess.Popen(psql.PSQL, stdin=subprocess.PIPE, text=True, bufsize=1)
        held.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO contact (id) VALUES (-1);\n")
        psql.wait_until(
            "the open transaction",
            lambda: psql.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'") == "1",
            10,
        )

    bulk = None
    if options.beside:
        nginx_running = nginx.running(False)
        other = nginx_running.__enter__()
        attach = "" if options.control else "SELECT webhook_attach('bulk');"
        psql.execute(
            f"""CREATE TABLE bulk (id bigint PRIMARY KEY, note text); {attach}
                SELECT webhook_update(id, '{{"events": ["contact.*"]}}') FROM webhook.endpoints;
                SELECT webhook_register(url => '{other.url}/bulk', events => '{{bulk.*}}', name => 'bulk')"""
        )
        bulk = subprocess.Popen(psql.PSQL, stdin=subprocess.PIPE, text=True)
        rows = f"SELECT n, repeat('x', 300) FROM generate_series(1, {options.beside}) n"
        if options.control == "twice":
            psql.execute("CREATE TABLE copy (id bigint PRIMARY KEY, data text)")
            bulk.stdin.write(
                f"""WITH row AS (INSERT INTO bulk {rows} RETURNING *)
                    INSERT INTO copy SELECT id, json_build_object('type', 'bulk.created', 'data', row)::text FROM row;\n"""
            )
        else:
            bulk.stdin.write(f"INSERT INTO bulk {rows};\n")
        bulk.stdin.close()

    if options.backlog:
        nginx_running = nginx.running(False)
        other = nginx_running.__enter__()
        psql.execute(
            f"""CREATE TABLE waiting (id bigint PRIMARY KEY, note text); SELECT webhook_attach('waiting');
                SELECT webhook_update(id, '{{"events": ["contact.*"]}}') FROM webhook.endpoints;
                SELECT webhook_register(url => '{"http://127.0.0.1:9" if options.dead else other.url}/backlog', events => '{{waiting.*}}', name => 'backlog');
                SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = 'backlog'"""
        )
        psql.progress(f"{options.backlog:,} changes, 100 in a transaction")
        psql.execute(
            f"""DO $$ BEGIN
                    FOR n IN 0..{options.backlog // 100 - 1} LOOP
                        INSERT INTO waiting SELECT 100 * n + i, repeat('x', 300) FROM generate_series(1, 100) i;
                        COMMIT;
                    END LOOP;
                END $$"""
        )
        worker = int(psql.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'webhook_pg worker'"))
        before = processes.private_mb(worker)
        psql.execute("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = 'backlog'")
        resumed = time.monotonic()

    if options.off:
        psql.execute("ALTER SYSTEM SET webhook_pg.enabled = off; SELECT pg_reload_conf()")
        psql.wait_until("it is off", lambda: psql.value("SHOW webhook_pg.enabled") == "off", 10)

    ranges, next_id, acknowledged = {}, 1, {}
    for rate in map(int, options.rates.split(",")):
        psql.progress(f"{rate}/s for {options.seconds} s")
        prober = sink.probe(receiver.port, 0.02, options.seconds)
        if options.updates:
            worker = int(psql.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'webhook_pg worker'"))
            before = processes.cpu_us(worker)
            update = """SELECT webhook_update(id, '{{"max_attempts": {n}}}') FROM webhook.endpoints WHERE name = 'elsewhere{n}'; SELECT pg_sleep(1);"""
            updating = subprocess.Popen([*psql.PSQL, "-c", "SET client_min_messages = error"] + [
                argument for n in range(1, options.seconds + 1) for argument in ("-c", update.format(n=n))
            ])
        count = write(next_id, rate, options.seconds, acknowledged)
        prober.join()
        if options.updates:
            if updating.wait() != 0:
                sys.exit("an update failed")
            used = processes.cpu_us(worker) - before
            psql.progress("")
            print(f"{options.seconds} updates of endpoints: {used / 1000 / options.seconds:.1f} ms of the worker's CPU a second, its deliveries included")
        if options.off:
            psql.execute("ALTER SYSTEM RESET webhook_pg.enabled; SELECT pg_reload_conf()")
        if options.backlog:
            drained, seconds = len(other.new_receipts()), time.monotonic() - resumed
            psql.progress("")
            rows = psql.value("SELECT count(*) FROM webhook.deliveries WHERE endpoint = 'backlog' AND state <> 'delivered'")
            print(f"Delivery rows of the backlog's endpoint that are not delivered: {rows}")
            print(f"{options.backlog:,} waited: {drained / seconds:,.0f}/s in the first {seconds:.0f} s,"
                  f" {processes.private_mb(worker):.0f} MB of private memory ({before:.0f} before)")
        ranges[rate] = range(next_id, next_id + count)
        next_id += count
        try:
            total = next_id + (options.waiting if options.hanging else 0) + (1 if options.scoped else 0) + (0 if options.control else options.beside)
            psql.wait_until("all deliveries", lambda total=total: int(psql.value(delivered)) >= total, 30 + (options.beside + count) / 2000)
        except TimeoutError as problem:
            print(f"\n{problem}", file=sys.stderr)
    psql.progress("")
    if bulk:
        bulk.wait()
        print(f"{options.beside:,} rows beside: {psql.value('SELECT count(*) FROM webhook.outbox WHERE type LIKE $$bulk.%$$')} events")
        nginx_running.__exit__(None, None, None)
    if options.held:
        held.stdin.close()  # ends the session, and with it the transaction, by a rollback
        held.wait()

    if options.healthy:
        print(f"The {options.healthy} beside it: {len(others.stop()):,} requests")
    arrived: dict[int, list[int]] = {}
    sent = {}
    bare = []
    for at, content in receiver.stop():
        request = json.loads(content)
        if "probe_us" in request:
            bare.append((at - request["probe_us"]) / 1000)
            continue
        row = request["data"]
        arrived.setdefault(row["id"], []).append(at)
        sent[row["id"]] = row["sent_at_us"]
    commits = psql.rows("SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000 FROM contact")
    committed = {int(key): float(at) for key, at in commits}
    attempts = psql.rows(
        """SELECT o.data::json ->> 'id', extract(epoch FROM d.started_at) * 1000000 FROM webhook.outbox o
             JOIN webhook.delivery d USING (xid, seq) JOIN webhook.endpoint e ON e.id = d.endpoint_id AND e.name = 'sink'"""
    )
    begun = {int(key): [float(at)] for key, at in attempts}

    parts = [(f"{rate}/s", rate, identities) for rate, identities in ranges.items()]
    if options.beside:
        # What waits for the transaction's WAL, and what waits for its deliveries.
        ended = float(psql.value("SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000 FROM bulk LIMIT 1"))
        parts += [
            (f"{name}, {when} the COMMIT beside", rate, [key for key in identities if key in sent and (sent[key] > ended) == (when == "after")])
            for name, rate, identities in parts for when in ("before", "after")
        ]
    body = []
    lost = sum(key not in arrived for identities in ranges.values() for key in identities)
    for part, rate, identities in parts:
        got = [key for key in identities if key in arrived]
        twice = sum(len(arrived[key]) - 1 for key in got)
        for name, since, until in (
            ("statement sent → commit acknowledged", sent, acknowledged),
            ("statement sent → receiver", sent, arrived),
            ("commit → receiver", committed, arrived),
            ("commit → request begins", committed, begun),
            ("commit acknowledged → receiver", {key: at[0] for key, at in acknowledged.items()}, arrived),
        ):
            waits = [(until[key][0] - since[key]) / 1000 for key in got if key in until]
            shown = [f"{psql.percentile(waits, share):.2f}" for share in (0.5, 0.99, 1.0)] if waits else ["–"] * 3
            shown.insert(1, usual(waits, rate))
            calm = [(until[key][0] - since[key]) / 1000 for key in got if key in until and quiet.has(sent[key], arrived[key][0])]
            shown += [len(calm), f"{psql.percentile(calm, 0.99):.2f}" if len(calm) >= 100 else "–"]
            body.append([f"{part}, {name}", len(got), *shown, len(identities) - len(got), twice])
    body.append(
        ["a bare request → receiver", len(bare), f"{psql.percentile(bare, 0.5):.2f}", "", *(f"{psql.percentile(bare, p):.2f}" for p in (0.99, 1.0)), "", "", "", ""]
    )
    print(psql.table(["latency in ms", "changes", "p50", "usual p99", "p99", "max", "in quiet", "p99", "lost", "twice"], body))
    print(f"\nUsual p99: the median of those of all {SLICE} s. In quiet: the changes around which the host took nothing away. The bare request tells what this machine itself takes. {steal}")
    return 0 if lost == 0 else 1


sys.exit(main())
