"""The database through psql: what the demo and the benchmarks share. Needs nothing beyond the standard library."""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PSQL = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]


def execute(sql: str) -> str:
    """Runs a script in one session and returns its output, unaligned and without headers."""
    done = subprocess.run(
        [*PSQL, "-A", "-t", "-F", "\x1f", "-R", "\x1e", "-f", "-"], input=sql, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"psql: {done.stderr.strip()}\n-- in: {sql.strip()[:300]}")
    return done.stdout


def rows(query: str) -> list[list[str]]:
    """The rows of one query as text."""
    output = execute(query).strip("\n\x1e")
    return [line.split("\x1f") for line in output.split("\x1e")] if output else []


def value(query: str) -> str:
    """The single value of one query."""
    return rows(query)[0][0]


def json_rows(query: str) -> list:
    """The rows of one query of a single json column, parsed."""
    return [json.loads(row[0]) for row in rows(query)]


def wait_until(what: str, probe, seconds: float, every: float = 0.05):
    """Polls `probe` until it answers something true and returns that; raises TimeoutError at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(every)


def progress(text: str) -> None:
    """Shows what is being done, on a terminal only; the empty text wipes it."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}" + ("" if text else "\r"), end="", file=sys.stderr, flush=True)


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(head: list[str], body: list[list], indent: str = "") -> str:
    """An aligned Markdown table; the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [head, *body]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]

    def line(row: list[str]) -> str:
        padded = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        return indent + "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])
