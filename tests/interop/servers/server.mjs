// Node's http as a server; what each path answers is told in with_aiohttp.py.
import { createHash } from "node:crypto";
import { createServer } from "node:http";

createServer(async (request, answer) => {
  answer.setHeader("X-Peer", `${request.socket.remoteAddress}:${request.socket.remotePort}`);
  if (request.url === "/hello") {
    answer.setHeader("Content-Length", 6);
    answer.end("hello\n");
  } else if (request.url === "/chunked") {
    for (let number = 0; number < 16; number++) answer.write(String.fromCharCode(97 + number).repeat(65536));
    answer.end();
  } else if (request.url === "/digest") {
    const sum = createHash("sha256");
    let size = 0;
    for await (const data of request) {
      sum.update(data);
      size += data.length;
    }
    answer.setHeader("Content-Type", "application/json");
    answer.end(JSON.stringify({ size, sha256: sum.digest("hex") }));
  } else {
    answer.writeHead(request.url === "/nothing" ? 204 : 404).end();
  }
}).listen(Number(process.argv[2]), "127.0.0.1");
