"""Asks the Python libraries of Standard Webhooks and Stripe, and PyNaCl for Ed25519, about the requests that come on standard input."""

import base64
import collections
import json
import sys

import nacl.exceptions
import nacl.signing
import standardwebhooks
import stripe


def standard(secret: str, headers: dict, body: bytes) -> bool:
    try:
        standardwebhooks.Webhook(secret).verify(body, headers)
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


def with_stripe(secret: str, headers: dict, body: bytes) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body.decode(), headers["stripe-signature"], secret, tolerance=300)
    except stripe.SignatureVerificationError:
        return False
    return True


def ed25519(public: str, headers: dict, body: bytes) -> bool:
    """As the specification of Standard Webhooks says: any of the signatures that begin with v1a."""
    key = nacl.signing.VerifyKey(base64.b64decode(public.removeprefix("whpk_")))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for version, _, signature in (part.partition(",") for part in headers["webhook-signature"].split(" ")):
        try:
            if version == "v1a":
                key.verify(content, base64.b64decode(signature))
                return True
        except nacl.exceptions.BadSignatureError:
            pass
    return False


VERIFIERS = {"standard": standard, "stripe": with_stripe, "ed25519": ed25519}
count, wrong = collections.Counter(), collections.defaultdict(list)
for line in sys.stdin:
    request = json.loads(line)
    scheme = request["scheme"]
    if verify := VERIFIERS.get(scheme):
        headers = request["headers"]
        body, changed = (base64.b64decode(request[name]) for name in ("body", "changed"))
        good = all(verify(secret, headers, body) for secret in request["secrets"])
        bad = any(verify(secret, headers, changed) for secret in request["secrets"])
        count[scheme] += 1
        if bad or not good:
            wrong[scheme].append(line)

for scheme in VERIFIERS:
    ok = count[scheme] >= 10_000 and not wrong[scheme]
    print(f"test python_accepts_{count[scheme]}_{scheme}_requests_and_none_with_a_changed_bit ... {'ok' if ok else 'FAILED'}")
    sys.stdout.writelines(wrong[scheme][:3])
failed = sum(count[scheme] < 10_000 or bool(wrong[scheme]) for scheme in VERIFIERS)
print(f"test result: {'FAILED' if failed else 'ok'}. {len(VERIFIERS) - failed} passed; {failed} failed;")
sys.exit(failed != 0)
