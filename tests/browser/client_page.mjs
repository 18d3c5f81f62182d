// The page of a web client, on another site than the homeserver: what it does is done by the tests.

import { createServer } from "node:http";
import { listen } from "./server.mjs";

const PAGE = `<!DOCTYPE html><title>A client</title><script>
window.said = [];
window.addEventListener("message", (event) => said.push({ data: event.data, origin: event.origin }));
</script><h1>A client</h1>`;

/** Serves it at every path, and files at theirs. */
export async function startClientPage(files = {}) {
    const server = createServer((request, response) => {
        const path = new URL(request.url, "http://localhost").pathname;
        const { type, content } = files[path] ?? { type: "text/html", content: PAGE };
        response.writeHead(200, { "Content-Type": type }).end(content);
    });
    const base = `http://localhost:${await listen(server)}`;
    return { base, end: () => server.close() };
}
