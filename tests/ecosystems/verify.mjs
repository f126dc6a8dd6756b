// Asks the JavaScript libraries of GitHub (Octokit), Shopify and Standard Webhooks about the requests that come on standard input.

import readline from "node:readline";
import { verify } from "@octokit/webhooks-methods";
import "@shopify/shopify-api/adapters/node";
import { shopifyApi, ApiVersion, LogSeverity } from "@shopify/shopify-api";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const shops = new Map();

// What the library makes of a secret is kept: making it anew takes longer than to verify.
function shop(secret) {
  if (!shops.has(secret)) {
    shops.clear();
    shops.set(secret, shopifyApi({
      apiKey: "key", apiSecretKey: secret, hostName: "example.com", apiVersion: ApiVersion.January26 ?? Object.values(ApiVersion)[0],
      isEmbeddedApp: false, logger: { level: LogSeverity.Error },
    }));
  }
  return shops.get(secret);
}

// Besides the signature the library wants headers that only a shop has.
const OF_A_SHOP = {
  "x-shopify-topic": "customers/update", "x-shopify-shop-domain": "example.myshopify.com",
  "x-shopify-api-version": "2026-01", "x-shopify-webhook-id": "1",
};

const verifiers = {
  github: (secret, headers, body) => verify(secret, body, headers["x-hub-signature-256"]),
  shopify: async (secret, headers, body) => {
    const rawRequest = { method: "POST", url: "/hooks", headers: { ...headers, ...OF_A_SHOP } };
    const answer = await shop(secret).webhooks.validate({ rawBody: body, rawRequest, rawResponse: {} });
    if (!answer.valid && answer.reason !== "invalid_hmac") throw new Error(JSON.stringify(answer));
    return answer.valid;
  },
  standard: (secret, headers, body) => {
    try {
      new Webhook(secret).verify(body, headers);
      return true;
    } catch (error) {
      if (error instanceof WebhookVerificationError) return false;
      throw error;
    }
  },
};

const count = {}, wrong = {};
for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const ask = verifiers[request.scheme];
  if (!ask) continue;
  const [body, changed] = [request.body, request.changed].map((text) => Buffer.from(text, "base64").toString("utf8"));
  count[request.scheme] = (count[request.scheme] ?? 0) + 1;
  for (const secret of request.secrets) {
    const right = (await ask(secret, request.headers, body)) && !(await ask(secret, request.headers, changed));
    if (!right) (wrong[request.scheme] ??= []).push(line);
  }
}

let failed = 0;
for (const scheme of Object.keys(verifiers)) {
  const ok = count[scheme] >= 10000 && !wrong[scheme];
  failed += ok ? 0 : 1;
  console.log(`test javascript_accepts_${count[scheme] ?? 0}_${scheme}_requests_and_none_with_a_changed_bit ... ${ok ? "ok" : "FAILED"}`);
  for (const line of (wrong[scheme] ?? []).slice(0, 3)) console.log(line);
}
const passed = Object.keys(verifiers).length - failed;
console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed;`);
process.exit(failed ? 1 : 0);
