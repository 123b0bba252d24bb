// Works on events that are leased: several such programs share them, and what one does not acknowledge another gets.
// For ever, or until COUNT batches. Usage: npx tsx work.ts [COUNT]

const gateway = process.env.GATEWAY ?? "http://127.0.0.1:8080";
const app = process.env.APP ?? "demo-app";
const key = process.env.KEY ?? "demo-crm";
const base = `${gateway}/v1/apps/${app}/events/user_events`;

interface Entry {
  cursor: string;
  type: string | null;
  user_id?: string | null;
  attempt: number;
  event?: unknown;
}

interface Batch {
  events: Entry[];
  lease: string | null;
}

async function ask<T>(url: string, body?: unknown): Promise<T> {
  const headers = { "X-API-Key": key, "Content-Type": "application/json" };
  const answer = await fetch(url, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return (await answer.json()) as T;
}

async function work(entry: Entry): Promise<void> {
  console.log(`attempt ${entry.attempt}:`, entry.type, entry.user_id);
}

const count = Number(process.argv[2] ?? Infinity);
for (let number = 0; number < count; ) {
  const batch = await ask<Batch>(`${base}?subscription=jobs-ts&ack=explicit&lease=30s&limit=20&max_attempts=5&wait=20s`);
  if (batch.events.length === 0) continue;
  const lease = { subscription: "jobs-ts", lease: batch.lease };
  try {
    for (const entry of batch.events) await work(entry);
  } catch (why) {
    console.error("not done:", why);
    await ask(`${base}/nack`, { ...lease, delay: "5s" });
    continue;
  }
  await ask(`${base}/ack`, lease);
  number += 1;
}
