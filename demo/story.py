"""The demo's story: real changes in a CRM database, what a receiver got of them, and whether the two agree exactly.

Run by scripts/demo inside a private cluster. Exits 0 only if the receiver's own record is what the database committed.
"""

import collections
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import time

import psql

HERE = pathlib.Path(__file__).resolve().parent
RECORD = pathlib.Path(os.environ["CLUSTER_DIR"]) / "received.jsonl"
FLAKY_FAILURES = 5
FORGED = "forged"
ATTACH = """
SELECT webhook_attach('contact');
SELECT webhook_attach('list');
SELECT webhook_attach('task');
SELECT webhook_attach('note', actions => '{created,deleted}');
SELECT webhook_attach('contact_metadata', actions => '{updated}');
SELECT webhook_attach('timeline_event', actions => '{created}');
"""
SINGLE_ROW_CHANGES = 200
PACED = f"{SINGLE_ROW_CHANGES} tasks, one transaction each"

# What happens, the SQL of it, and the events that it must raise.
CHANGES = [
    (
        "three contacts are created",
        "INSERT INTO contact (first_name, last_name, email, contact_balance) VALUES ('Ada', 'Lovelace', 'ada@example.com', 12.50);"
        "INSERT INTO contact (first_name, last_name, email) VALUES ('Grace', 'Hopper', 'grace@example.com');"
        "INSERT INTO contact (first_name, last_name, city) VALUES ('Emmy', 'Noether', 'Göttingen “am Wall” \\ 3');",
        {"contact.created": 3},
    ),
    (
        "a list, a task, a note, a timeline event",
        "INSERT INTO list (name) VALUES ('Newsletter');"
        "INSERT INTO task (contact_id, title) SELECT id, 'Send the offer' FROM contact WHERE last_name = 'Hopper';"
        "INSERT INTO note (contact_id, body) SELECT id, 'Prefers COBOL' FROM contact WHERE last_name = 'Hopper';"
        "INSERT INTO timeline_event (contact_id, kind) SELECT id, 'call' FROM contact WHERE last_name = 'Hopper';",
        {"list.created": 1, "task.created": 1, "note.created": 1, "timeline_event.created": 1},
    ),
    (
        "a contact, a task, a list are updated",
        "UPDATE contact SET email = 'ada@analytical.example', modified_ts = now() WHERE last_name = 'Lovelace';"
        "UPDATE task SET status = 'done' WHERE title = 'Send the offer';"
        "UPDATE list SET name = 'Monthly newsletter';",
        {"contact.updated": 1, "task.updated": 1, "list.updated": 1},
    ),
    ("an update that changes nothing", "UPDATE contact SET email = email;", {}),
    (
        "metadata is written, then updated",
        "INSERT INTO contact_metadata (contact_id, name, value) SELECT id, 'plan', 'free' FROM contact WHERE last_name = 'Noether';"
        "UPDATE contact_metadata SET value = 'gold';",
        {"contact_metadata.updated": 1},
    ),
    (
        "a transaction is rolled back",
        "BEGIN; INSERT INTO contact (last_name) SELECT 'Ghost' FROM generate_series(1, 50);"
        "UPDATE contact SET city = 'Nowhere'; DELETE FROM list; ROLLBACK;",
        {},
    ),
    (
        "a savepoint is rolled back, the rest commits",
        "BEGIN; INSERT INTO contact (last_name) VALUES ('Kept'); SAVEPOINT s;"
        "INSERT INTO contact (last_name) SELECT 'Ghost' FROM generate_series(1, 10); ROLLBACK TO s; COMMIT;",
        {"contact.created": 1},
    ),
    (
        "a contact is deleted, its note and task with it",
        "DELETE FROM contact WHERE last_name = 'Hopper';",
        {"contact.deleted": 1, "note.deleted": 1, "task.deleted": 1},
    ),
    ("a list is deleted", "DELETE FROM list;", {"list.deleted": 1}),
    (
        PACED,
        "".join(
            f"INSERT INTO task (contact_id, title) SELECT id, 'Call back {n}' FROM contact WHERE last_name = 'Lovelace';"
            "SELECT pg_sleep(0.01);"
            for n in range(SINGLE_ROW_CHANGES)
        ),
        {"task.created": SINGLE_ROW_CHANGES},
    ),
    (
        "1,000 contacts in one statement",
        "INSERT INTO contact (location_id, first_name, last_name, email)"
        "SELECT 'berlin', 'Person', 'No. ' || n, format('person%s@example.com', n) FROM generate_series(1, 1000) n;",
        {"contact.created": 1000},
    ),
]


@contextlib.contextmanager
def receiver():
    """Starts the receiver; yields its port and a function that hands it the secret of a path."""
    python = os.environ.get("DEMO_PYTHON", sys.executable)
    process = subprocess.Popen(
        [python, HERE / "receiver.py", RECORD, "--fail-first", f"/flaky={FLAKY_FAILURES}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def hand_over(path: str, secret: str) -> None:
        process.stdin.write(f"{path} {secret}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ok\n", "the receiver did not take the secret"

    try:
        yield int(process.stdout.readline()), hand_over
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()


def register(port: int, name: str, options: str) -> str:
    """Registers one endpoint and returns its secret, which is shown this once."""
    return psql.rows(
        f"SELECT id, secret FROM webhook_register(url => 'http://127.0.0.1:{port}/{name}', name => '{name}', {options})"
    )[0][1]


def say(line: str = "") -> None:
    print(line, flush=True)


def forge(port: int) -> bool:
    """Sends a request with a made-up signature; whether the receiver refused it."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"webhook-id": FORGED, "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,Zm9yZ2Vk"}
    connection.request("POST", "/crm", json.dumps({"type": "contact.deleted", "timestamp": "", "data": None}), headers)
    return connection.getresponse().status == 400


def delivered(endpoint: str) -> int:
    return int(
        psql.value(f"SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{endpoint}' AND state = 'delivered'")
    )


def drained(expected: int) -> bool:
    """Whether every expected delivery is committed as ended."""
    ended, pending = psql.rows(
        "SELECT count(*) FILTER (WHERE state <> 'pending'), count(*) FILTER (WHERE state = 'pending') FROM webhook.deliveries"
    )[0]
    return int(ended) >= expected and pending == "0"


def tell_changes() -> collections.Counter:
    """Makes the changes and returns how many events of each type they must have raised."""
    planned: collections.Counter = collections.Counter()
    width = max(len(title) for title, _, _ in CHANGES)
    say("\nWhat happens, and the events it must raise")
    for title, sql, events in CHANGES:
        if title == PACED:  # measured from a worker at rest, not from one that still starts
            with contextlib.suppress(TimeoutError):
                psql.wait_until("/crm to catch up", lambda: delivered("crm") >= planned.total(), 30)
        psql.execute(sql)
        planned.update(events)
        say(f"  {title.ljust(width)}  {', '.join(f'{count} {kind}' for kind, count in events.items()) or 'nothing'}")
    return planned


def tell_arrivals(events: dict[str, str], accepted: dict[str, list[dict]]) -> None:
    kinds = collections.Counter(events.values())
    arrived = {name: collections.Counter(entry["type"] for entry in got) for name, got in accepted.items()}
    body = [[kind, kinds[kind], arrived["crm"][kind], arrived["flaky"][kind] or "-"] for kind in sorted(kinds)]
    body.append(["all", len(events), len(accepted["crm"]), len(accepted["flaky"])])
    say("\nWhat arrived (answered 200), by event type")
    say(psql.table(["event type", "committed", "/crm", "/flaky"], body, "  "))


def tell_latency(accepted: list[dict]) -> None:
    """From the commit's own timestamp to the arrival of the request, on one clock."""
    committed = {
        int(key): float(at)
        for key, at in psql.rows(
            "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000 FROM task WHERE title LIKE 'Call back %'"
        )
    }
    waits = [
        (entry["arrived_at_us"] - committed[entry["key"]["id"]]) / 1000
        for entry in accepted
        if entry["type"] == "task.created" and entry["key"]["id"] in committed
    ]
    shown = [f"{psql.percentile(waits, share):.2f} ms" for share in (0.5, 0.99, 1.0)] if waits else ["-"] * 3
    say("\nFrom commit to receipt")
    say(psql.table(["single-row transactions", "p50", "p99", "max"], [[len(waits), *shown]], "  "))


def tell_attempts(record: list[dict]) -> None:
    tries = collections.Counter((entry["path"], entry["attempt"], entry["status"]) for entry in record)
    numbers = sorted({(path, attempt) for path, attempt, _ in tries})
    say(f"\nAttempts (/flaky answers 500 to its first {FLAKY_FAILURES} requests)")
    body = [[path, attempt, tries[path, attempt, 200], tries[path, attempt, 500]] for path, attempt in numbers]
    say(psql.table(["endpoint", "attempt", "answered 200", "answered 500"], body, "  "))


def tell_deliveries() -> None:
    body = psql.rows(
        "SELECT endpoint, count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'pending'),"
        " count(*) FILTER (WHERE state = 'dead'), max(attempts) FROM webhook.deliveries GROUP BY endpoint ORDER BY endpoint"
    )
    say("\nWhat the database says (webhook.deliveries)")
    say(psql.table(["endpoint", "delivered", "pending", "dead", "most attempts"], body, "  "))


def verdict(
    planned: collections.Counter,
    events: dict[str, str],
    record: list[dict],
    accepted: dict[str, list[dict]],
    refused: bool,
) -> bool:
    """Holds the receiver's record against the database, promise by promise."""
    contacts = {identity for identity, kind in events.items() if kind.startswith("contact.")}
    ids = {name: collections.Counter(entry["id"] for entry in got) for name, got in accepted.items()}
    tries = collections.Counter((entry["path"].lstrip("/"), entry["id"]) for entry in record)
    counted = psql.rows("SELECT endpoint, event_id, attempts FROM webhook.deliveries")
    told = {(name, event): int(attempts) for name, event, attempts in counted}
    again = sum(count - 1 for count in tries.values())
    # Dead or alive, a row is in the table as the last event about it says.
    last = {}
    for entry in sorted(accepted["crm"], key=lambda entry: entry["timestamp"]):
        if entry["type"].startswith("contact."):
            last[entry["key"]["id"]] = None if entry["type"] == "contact.deleted" else entry["data"]
    alive = {key: data for key, data in last.items() if data is not None}
    rows = {row["id"]: row for row in psql.json_rows("SET timezone = 'UTC'; SELECT row_to_json(contact) FROM contact")}

    promises = [
        ("every change raised its event, and nothing else did", collections.Counter(events.values()) == planned),
        ("/crm accepted every committed event", set(ids["crm"]) == set(events)),
        ("/flaky accepted every committed contact.* event", set(ids["flaky"]) == contacts),
        ("nothing was accepted twice", all(count == 1 for name in ids for count in ids[name].values())),
        (
            "nothing of a rolled-back transaction arrived",
            not any("Ghost" in json.dumps(entry.get("data")) for entry in record),
        ),
        (
            f"each of the {len(record):,} requests verified with the Standard Webhooks library",
            all(entry["verified"] for entry in record),
        ),
        ("a forged request was refused", refused),
        ("the last body of each contact equals its row", alive == rows),
        (f"the {FLAKY_FAILURES} failed requests were tried again under the same id", again == FLAKY_FAILURES),
        ("the database counts the attempts that the receiver saw", tries == told),
    ]
    say("\nThe receiver's record against the database")
    for promise, kept in promises:
        say(f"  {'ok    ' if kept else 'BROKEN'}  {promise}")
    return all(kept for _, kept in promises)


def main() -> int:
    started = time.monotonic()
    with receiver() as (port, hand_over):
        psql.execute((HERE / "crm.sql").read_text(encoding="utf-8") + "CREATE EXTENSION webhook_pg;" + ATTACH)
        hand_over("/crm", register(port, "crm", "events => '{*}'"))
        hand_over(
            "/flaky", register(port, "flaky", "events => '{contact.*}', attempt_interval => '1 s', max_attempts => 5")
        )
        say(f"Six CRM tables attached; endpoints /crm (all events) and /flaky (contact.*) on 127.0.0.1:{port}.")
        planned = tell_changes()
        events = dict(psql.rows("SELECT id, type FROM webhook.events"))
        contacts = sum(kind.startswith("contact.") for kind in events.values())
        try:
            psql.wait_until("all deliveries to end", lambda: drained(len(events) + contacts), 60, every=0.1)
        except TimeoutError as problem:
            say(f"\n{problem}")  # the tables below show what is missing
        refused = forge(port)
    record = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    record = [entry for entry in record if entry["id"] != FORGED]
    accepted = {
        name: [e for e in record if e["path"] == f"/{name}" and e["status"] == 200] for name in ("crm", "flaky")
    }

    tell_arrivals(events, accepted)
    tell_latency(accepted["crm"])
    tell_attempts(record)
    tell_deliveries()
    agreed = verdict(planned, events, record, accepted, refused)
    say(f"\n{'They agree exactly.' if agreed else 'THEY DO NOT AGREE.'} ({time.monotonic() - started:.1f} s)")
    return 0 if agreed else 1


sys.exit(main())
