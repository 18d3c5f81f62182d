// A mail server that keeps what it is given.

import { createServer } from "node:net";
import { listen } from "./server.mjs";

const LIMIT_MS = 30_000;

/** The part that is plain text. All of it is ASCII in these tests. */
function plainText(mail) {
    const part = mail.slice(mail.search(/^Content-Type: text\/plain/im));
    const end = part.indexOf("\n\n");
    const [head, body] = [part.slice(0, end), part.slice(end).split("\n--")[0]];
    if (!/quoted-printable/i.test(head)) return body;
    return body.replace(/=\n/g, "").replace(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
}

export async function startMail() {
    const mails = [];
    const server = createServer((socket) => {
        let unread = "", content = null;
        const line = (text) => {
            if (content !== null) {
                if (text !== ".") return content.push(text.replace(/^\.\./, "."));
                mails.push(content.join("\n"));
                content = null;
                return socket.write("250 kept\r\n");
            }
            const verb = text.slice(0, 4).toUpperCase();
            if (verb === "DATA") content = [];
            socket.write(verb === "DATA" ? "354 go on\r\n" : verb === "QUIT" ? "221 bye\r\n" : "250 good\r\n");
        };
        socket.on("error", () => {});
        socket.on("data", (data) => {
            const lines = (unread + data).split("\r\n");
            unread = lines.pop();
            lines.forEach(line);
        });
        socket.write("220 mail\r\n");
    });
    const port = await listen(server);

    /** The first link of the newest mail to an address, waited for, and taken out. */
    async function link(address) {
        for (const end = Date.now() + LIMIT_MS; Date.now() < end; await new Promise((r) => setTimeout(r, 50))) {
            const place = mails.findLastIndex((mail) => new RegExp(`^To:.*${address}`, "im").test(mail));
            if (place < 0) continue;
            const [mail] = mails.splice(place, 1);
            return plainText(mail).match(/http:\/\/127\.0\.0\.1:\d+\/[^\s<>"]+/)[0];
        }
        throw new Error(`there is no mail to ${address}`);
    }
    return { port, link, end: () => server.close() };
}
