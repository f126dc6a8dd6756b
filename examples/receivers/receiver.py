"""A receiver of webhook_pg's events that verifies them, with the standard library alone.

    WEBHOOK_SECRET=whsec_... python3 receiver.py [port]

The package `standardwebhooks` (PyPI) does what is_genuine() does.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE = 300  # seconds that a request may be old: a recorded one is of no use later
seen = set()  # in earnest: a table with a unique key, written in the transaction that handles the event


def is_genuine(headers, body: bytes) -> bool:
    identifier, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    signed = f"{identifier}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256))
    # There are several signatures while a secret is being rotated.
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    return any([hmac.compare_digest(expected, signature) for signature in signatures])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        # The exact bytes: JSON that was read and written again has another signature.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not is_genuine(self.headers, body):
            return self.answer(401, "refused")
        if self.headers["webhook-id"] in seen:
            return self.answer(200, "duplicate")
        event = json.loads(body)
        print(event["type"], event["data"], flush=True)
        seen.add(self.headers["webhook-id"])
        self.answer(200, "accepted")

    def answer(self, status: int, text: str):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Receiver).serve_forever()
