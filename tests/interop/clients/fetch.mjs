// Node's fetch and, where this Node has one, its WebSocket; what it prints is told in common.py.
import { createHash } from "node:crypto";

const [base, kept] = process.argv.slice(2);
const large = Buffer.alloc(5 * 1024 * 1024, Buffer.from(Array.from({ length: 251 }, (_, index) => index)));
const digest = (data) => createHash("sha256").update(data).digest("hex");
const wait = () => ({ signal: AbortSignal.timeout(20_000) });

async function tell(name, work) {
  let seen;
  try {
    seen = await work();
  } catch (error) {
    seen = { error: `${error} ${error.cause ?? ""}` };
  }
  console.log(JSON.stringify({ case: name, ...seen }));
}

async function upload(body, more = {}) {
  const answer = await fetch(`${base}/o/digest`, { method: "POST", body, ...more, ...wait() });
  return { status: answer.status, told: await answer.json() };
}

function stream() {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= large.length) return controller.close();
      controller.enqueue(large.subarray(at, (at += 65536)));
    },
  });
}

async function download(query) {
  const answer = await fetch(`${base}/o/large${query}`, wait());
  const data = Buffer.from(await answer.arrayBuffer());
  return { status: answer.status, sha256: digest(data), length: answer.headers.get("content-length") };
}

await tell("get", async () => {
  const answer = await fetch(`${base}/o/hello`, wait());
  return { status: answer.status, body: await answer.text(), type: answer.headers.get("content-type") };
});
await tell("head", async () => {
  const answer = await fetch(`${base}/o/hello`, { method: "HEAD", ...wait() });
  return { status: answer.status, body: await answer.text(), length: answer.headers.get("content-length") };
});
await tell("post", () => upload('{"instances":[1,2,3]}', { headers: { "content-type": "application/json" } }));
await tell("upload", () => upload(large));
await tell("upload-chunked", () => upload(stream(), { duplex: "half" }));
await tell("download", () => download(""));
await tell("download-chunked", () => download("?chunked"));
await tell("keep-alive", async () => {
  const statuses = [];
  for (let count = 0; count < 6; count++) {
    const answer = await fetch(`${kept}/o/hello`, wait());
    await answer.text();
    statuses.push(answer.status);
    await new Promise((resolve) => setTimeout(resolve, 20)); // fetch frees its connection a turn after the text is there
  }
  return { statuses };
});
await tell("gzip", async () => {
  const answer = await fetch(`${base}/o/gzip`, wait()); // fetch always unpacks
  const data = Buffer.from(await answer.arrayBuffer());
  return { status: answer.status, unpacked: digest(data), encoding: answer.headers.get("content-encoding") };
});
await tell("204", async () => {
  const answer = await fetch(`${base}/o/nothing`, wait());
  return { status: answer.status, body: await answer.text() };
});
await tell("304", async () => {
  const answer = await fetch(`${base}/o/tagged`, { headers: { "if-none-match": '"v1"' }, ...wait() });
  return { status: answer.status, body: await answer.text(), etag: answer.headers.get("etag") };
});
await tell("404", async () => {
  const answer = await fetch(`${base}/no/such`, wait());
  return { status: answer.status, type: answer.headers.get("content-type"), told: (await answer.json()).status };
});
await tell("redirect", async () => {
  const first = await fetch(`${base}/o/redirect`, { redirect: "manual", ...wait() });
  await first.text();
  const last = await fetch(`${base}/o/redirect`, wait());
  return { status: first.status, location: first.headers.get("location"), body: await last.text() };
});
await tell("early-close", async () => {
  const answer = await fetch(`${base}/o/endless`, wait());
  const reader = answer.body.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return { status: answer.status, some: value.length > 0 };
});
await tell("events", async () => {
  const answer = await fetch(`${base}/o/events`, wait());
  const data = [];
  const times = [];
  let rest = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines.filter((one) => one.startsWith("data: "))) {
      data.push(line.slice(6));
      times.push(performance.now() / 1000);
    }
  }
  return { status: answer.status, type: answer.headers.get("content-type"), data, times };
});

/** Opens a WebSocket, sends the first of what `send` holds, and each other one when an answer came. */
function talk(send, protocols = []) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws${base.slice(4)}/ws`, protocols);
    const got = [];
    setTimeout(() => reject(new Error("no answer in time")), 10_000).unref();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(send[0]);
    socket.onmessage = ({ data }) => {
      got.push(data);
      if (got.length < send.length) socket.send(send[got.length]);
      else socket.close(4002, "enough");
    };
    socket.onclose = ({ code, reason }) => resolve({ got, code, reason, protocol: socket.protocol });
    socket.onerror = (event) => reject(new Error(event.message ?? "error event"));
  });
}

if (typeof WebSocket === "function") {
  await tell("websocket", async () => {
    const { got, protocol } = await talk(["grüße", large.subarray(0, 500_000)], ["a", "echo"]);
    return { protocol, text: got[0], sha256: digest(Buffer.from(got[1])) };
  });
  await tell("websocket-pinged", async () => ({ text: (await talk(["ping me"])).got[0] }));
  await tell("websocket-closed", async () => {
    const { code, reason } = await talk(["close 4001 bye"]);
    return { code, reason };
  });
}
process.exit(0);
