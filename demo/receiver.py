"""A webhook receiver as an integrator would write it: HTTP/1.1 on loopback, each request verified with the official
Standard Webhooks library, each one recorded as a JSON line.

    receiver.py RECORD [--fail-first PATH=N]...

Prints its port, then reads one line per endpoint on standard input, a path and its secret, and answers "ok" to each.
It ends when standard input does. A request that does not verify is answered 400; `--fail-first` answers 500 to the
first N verified requests of a path, like a service that is down for a moment.
"""

import argparse
import collections
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook


class Receiver(ThreadingHTTPServer):
    """What the requests share: secrets by path, failures still to give, and the record."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, record_path: str, fail_first: dict[str, int]):
        super().__init__(("127.0.0.1", 0), Request)
        self.secrets: dict[str, Webhook] = {}
        self.failures_left = dict(fail_first)
        self.attempts: collections.Counter = collections.Counter()
        self.lock = threading.Lock()
        self.record = open(record_path, "w", encoding="utf-8", buffering=1)

    def judge(self, path: str, headers: dict[str, str], body: bytes) -> dict:
        """Verifies one request, chooses the answer and returns what is to be recorded."""
        entry = {"path": path, "id": headers.get("webhook-id"), "verified": False, "status": 400}
        try:
            event = self.secrets[path].verify(body, headers)
            entry.update(verified=True, status=200, type=event["type"], key=event.get("key"))
            entry.update(timestamp=event["timestamp"], data=event.get("data"))
        except Exception as problem:  # whatever is wrong with it, it goes into the record
            entry["problem"] = f"{type(problem).__name__}: {problem}"
        with self.lock:
            self.attempts[path, entry["id"]] += 1
            entry["attempt"] = self.attempts[path, entry["id"]]
            if entry["verified"] and self.failures_left.get(path, 0) > 0:
                self.failures_left[path] -= 1
                entry["status"] = 500
        return entry


class Request(BaseHTTPRequestHandler):
    """One connection, kept open for many requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Receiver

    def parse_request(self) -> bool:
        self.arrived_at_us = time.time_ns() // 1000
        return super().parse_request()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        entry = self.server.judge(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        # Recorded before it is answered: who got an answer is in the record.
        with self.server.lock:
            self.server.record.write(json.dumps({"arrived_at_us": self.arrived_at_us, **entry}) + "\n")
        self.send_response(entry["status"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args) -> None:
        """No access log on the terminal: the record has it all."""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("record")
    arguments.add_argument("--fail-first", action="append", default=[], metavar="PATH=N")
    options = arguments.parse_args()
    fail_first = {path: int(count) for path, count in (item.rsplit("=", 1) for item in options.fail_first)}

    receiver = Receiver(options.record, fail_first)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    print(receiver.server_address[1], flush=True)
    for line in sys.stdin:
        path, secret = line.split()
        receiver.secrets[path] = Webhook(secret)
        print("ok", flush=True)


main()
