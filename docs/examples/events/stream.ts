// Prints events as they come (Server-Sent Events), for ever or until COUNT of them. A connection that breaks is made
// again, and the stream goes on after the last event that came. Usage: npx tsx stream.ts [COUNT]

const gateway = process.env.GATEWAY ?? "http://127.0.0.1:8080";
const app = process.env.APP ?? "demo-app";
const key = process.env.KEY ?? "demo-crm";

interface ServerSentEvent {
  id?: string;
  event?: string;
  data: string;
}

async function* parsed(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let rest = "";
  let fields: Partial<ServerSentEvent> = {};
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (fields.data !== undefined) yield fields as ServerSentEvent;
        fields = {};
        continue;
      }
      const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
      if (name === "data") fields.data = fields.data === undefined ? value : `${fields.data}\n${value}`;
      else if (name === "id" || name === "event") fields[name] = value;
    }
  }
}

async function* events(): AsyncGenerator<ServerSentEvent> {
  const url = `${gateway}/v1/apps/${app}/events/user_events?subscription=crm-ts`;
  let last: string | undefined;
  for (;;) {
    const headers: Record<string, string> = { "X-API-Key": key, Accept: "text/event-stream" };
    if (last) headers["Last-Event-ID"] = last;
    try {
      const answer = await fetch(url, { headers });
      if (!answer.ok && answer.status !== 429 && answer.status !== 503) throw new Error(await answer.text());
      if (answer.ok && answer.body) {
        for await (const event of parsed(answer.body)) {
          last = event.id ?? last;
          yield event;
        }
      }
    } catch (why) {
      if (!(why instanceof TypeError)) throw why;
      console.error("again:", why.message);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

const count = Number(process.argv[2] ?? Infinity);
let number = 0;
for await (const event of events()) {
  console.log(event.id, event.event, JSON.parse(event.data));
  if (++number === count) process.exit(0);
}
