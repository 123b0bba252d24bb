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

interface Settled {
  result: "success" | "failed";
  detail?: string;
}

interface Batch {
  events: Entry[];
  lease?: string;
  settled?: Settled;
}

async function ask<T>(url: string, body: unknown): Promise<T> {
  const headers = { "X-API-Key": key, "Content-Type": "application/json" };
  const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return (await answer.json()) as T;
}

async function work(entry: Entry): Promise<void> {
  console.log(`attempt ${entry.attempt}:`, entry.type, entry.user_id);
}

const count = Number(process.argv[2] ?? Infinity);
const read = { subscription: "jobs-ts", lease: "30s", limit: 20, max_attempts: 5, wait: "20s" };
// What is done with: acknowledged with the next read, in one round trip.
let settle: { lease?: string } | undefined;
for (let number = 0; number < count; ) {
  const batch = await ask<Batch>(`${base}/next`, { ...read, settle });
  if (batch.settled?.result === "failed") console.error("too late, it comes again:", batch.settled.detail);
  settle = undefined;
  if (batch.events.length === 0) continue;
  try {
    for (const entry of batch.events) await work(entry);
  } catch (why) {
    console.error("not done:", why);
    await ask(`${base}/nack`, { subscription: "jobs-ts", lease: batch.lease, delay: "5s" });
    continue;
  }
  settle = { lease: batch.lease };
  number += 1;
}
if (settle) await ask(`${base}/ack`, { subscription: "jobs-ts", ...settle });
