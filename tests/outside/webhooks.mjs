// What webhooks.py kept, by the JavaScript libraries of Standard Webhooks and CloudEvents. Usage: webhooks.mjs FILE
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
const seen = JSON.parse(readFileSync(process.argv[2], "utf8"));
const ids = {};
for (const { kind, headers, body, refused } of seen) {
  webhook.verify(body, headers);
  assert.throws(() => webhook.verify(body + " ", headers));
  const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  const events = [HTTP.toEvent({ headers: lower, body })].flat();
  for (const event of events) {
    event.validate();
    assert.equal(event.source, "/v1/apps/demo-app/events/user_events");
    assert.ok(event.data.user_id);
    if (!refused) (ids[kind] ??= []).push(event.id);
  }
}
assert.deepEqual(ids.structured, ids.binary);
assert.deepEqual(ids.structured, ids.batch);
console.log(`JavaScript: ${seen.length} requests in ${Object.keys(ids).length} formats verify and parse.`);
