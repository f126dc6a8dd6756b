// A receiver of webhook_pg's events that verifies them, with Node.js alone.
//
//     WEBHOOK_SECRET=whsec_... node receiver.mjs [port]
//
// The package `standardwebhooks` (npm) does what isGenuine() does.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const key = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const TOLERANCE = 300; // seconds that a request may be old: a recorded one is of no use later
const seen = new Set(); // in earnest: a table with a unique key, written in the transaction that handles the event

function isGenuine(headers, body) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]{1,12}$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE) return false;
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const expected = Buffer.from("v1," + createHmac("sha256", key).update(signed).digest("base64"));
  // There are several signatures while a secret is being rotated.
  const signatures = (headers["webhook-signature"] ?? "").split(" ").map((text) => Buffer.from(text));
  return signatures.some((signature) => signature.length === expected.length && timingSafeEqual(signature, expected));
}

createServer(async (request, response) => {
  const answer = (status, text) => response.writeHead(status).end(text);
  // The exact bytes: JSON that was read and written again has another signature.
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (!isGenuine(request.headers, body)) return answer(401, "refused");
  if (seen.has(request.headers["webhook-id"])) return answer(200, "duplicate");
  const event = JSON.parse(body);
  console.log(event.type, JSON.stringify(event.data));
  seen.add(request.headers["webhook-id"]);
  answer(200, "accepted");
}).listen(Number(process.argv[2] ?? 8000), "127.0.0.1");
