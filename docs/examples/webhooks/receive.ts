// Receives webhooks and verifies them by hand (Standard Webhooks, `v1`); there are libraries for it, too. The key, as in
// the gateway's `secrets`, is in WEBHOOK_SECRET. Ends after COUNT events, if that is given.
// Usage: npx tsx receive.ts PORT [COUNT]

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";

const key = Buffer.from((process.env.WEBHOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
const toleranceSeconds = 5 * 60;

function isGenuine(headers: IncomingHttpHeaders, body: Buffer): boolean {
  const id = String(headers["webhook-id"]);
  const stamp = String(headers["webhook-timestamp"]);
  if (!(Math.abs(Date.now() / 1000 - Number(stamp)) <= toleranceSeconds)) return false;
  const signed = createHmac("sha256", key).update(`${id}.${stamp}.`).update(body).digest();
  // While keys are changed there are several signatures.
  return String(headers["webhook-signature"])
    .split(" ")
    .filter((one) => one.startsWith("v1,"))
    .map((one) => Buffer.from(one.slice(3), "base64"))
    .some((one) => one.length === signed.length && timingSafeEqual(one, signed));
}

const count = Number(process.argv[3] ?? Infinity);
const seen = new Set<string>();
const server = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  const genuine = isGenuine(request.headers, body);
  response.writeHead(genuine ? 204 : 401).end();
  const id = String(request.headers["webhook-id"]);
  // The same id is the same event: a try that ended in doubt comes again.
  if (genuine && !seen.has(id)) {
    seen.add(id);
    const event = JSON.parse(body.toString());
    console.log(event.type, event.subject, event.data);
    if (seen.size >= count) response.on("close", () => process.exit(0));
  }
});
server.listen(Number(process.argv[2]), "127.0.0.1");
