// Counts all messages of a channel, of any number, as they come; a stream that breaks is gone on with from its last
// cursor. Usage: npx tsx export.ts [CHANNEL]

import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";

const gateway = process.env.GATEWAY ?? "http://127.0.0.1:8080";
const app = process.env.APP ?? "demo-app";
const key = process.env.KEY ?? "demo-crm";

interface Message {
  src: string;
  dst: string;
  ms: number;
  payload: string;
}
type Line = Message | { cursor: string; end?: true; error?: { detail: string } };

/** Messages up to a cursor each time: what came after the last cursor of a broken stream comes again. */
async function* parts(destination: string): AsyncGenerator<Message[]> {
  const query = new URLSearchParams({ destination, start_time: "1", end_time: "4000000000" });
  for (;;) {
    const answer = await fetch(`${gateway}/v1/apps/${app}/history?${query}`, {
      headers: { "X-API-Key": key, Accept: "application/x-ndjson" },
    });
    if (!answer.ok || !answer.body) throw new Error(`${answer.status}: ${await answer.text()}`);
    let waiting: Message[] = [];
    const text = Readable.fromWeb(answer.body as ReadableStream);
    try {
      for await (const line of createInterface({ input: text, crlfDelay: Infinity })) {
        const value = JSON.parse(line) as Line;
        if ("ms" in value) {
          waiting.push(value);
          continue;
        }
        // Whatever the line says beside, its cursor stands for all messages above it.
        query.set("cursor", value.cursor);
        yield waiting;
        waiting = [];
        if (value.end) return;
        if (value.error) {
          console.error("broken:", value.error.detail);
          break;
        }
      }
    } catch (why) {
      console.error("broken:", why);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

let count = 0;
for await (const messages of parts(process.argv[2] ?? "lobby")) count += messages.length;
console.log(`${count} messages`);
