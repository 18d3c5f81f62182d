// A millrace of the test's own, and its API as plain calls.

import { spawn } from "node:child_process";
import { createHmac, randomInt } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";

const START_LIMIT_MS = 60_000;
const SHARED_SECRET = "a secret of the browser tests";
export const V3 = "/_matrix/client/v3";

/** A port that nobody listens on, below those that the system gives to outgoing connections: such a
 *  connection could else take it before the server does. */
export async function freePort() {
    const range = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8");
    for (;;) {
        const port = randomInt(10_000, parseInt(range));
        const probe = createServer();
        const free = await new Promise((resolve) => {
            probe.once("error", () => resolve(false));
            probe.listen(port, "127.0.0.1", () => resolve(true));
        });
        if (!free) continue;
        await new Promise((resolve) => probe.close(resolve));
        return port;
    }
}

/** Listens on loopback, and returns where. */
export async function listen(server) {
    const port = await freePort();
    await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
    return port;
}

export class Millrace {
    /** `more` is configuration: a text of what [global] and further tables have besides the usual. */
    static async start(binary, folder, port, more) {
        const server = new Millrace();
        server.base = `http://127.0.0.1:${port}`;
        server.logFile = `${folder}/millrace.log`;
        mkdirSync(folder, { recursive: true });
        const config = [
            "[global]", 'server_name = "localhost"', `database_path = "${folder}/database"`,
            'address = "127.0.0.1"', `port = ${port}`, "allow_registration = true",
            `registration_shared_secret = "${SHARED_SECRET}"`, "allow_federation = false",
            "password_hash = { memory_kib = 1024, iterations = 1, parallelism = 1 }", more,
        ];
        writeFileSync(`${folder}/conduit.toml`, config.join("\n"));
        const log = openSync(server.logFile, "a");
        server.process = spawn(binary, ["serve", "--config", `${folder}/conduit.toml`], { stdio: ["ignore", log, log] });
        closeSync(log);
        const ended = new Promise((_, reject) => {
            server.process.once("error", reject);
            server.process.once("exit", (status) => reject(new Error(`millrace ended: ${status}\n${server.log()}`)));
        });
        await Promise.race([ended, server.answers()]);
        ended.catch(() => {}); // later it ends because it is told to
        return server;
    }

    async answers() {
        const end = Date.now() + START_LIMIT_MS;
        while (Date.now() < end) {
            const up = await fetch(`${this.base}/_matrix/client/versions`).then((answer) => answer.ok, () => false);
            if (up) return;
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
        throw new Error(`millrace does not answer\n${this.log()}`);
    }

    /** The end of its log. */
    log() {
        return readFileSync(this.logFile, "utf8").split("\n").slice(-40).join("\n");
    }

    async end() {
        if (this.process.exitCode !== null) return;
        const ended = new Promise((resolve) => this.process.once("exit", resolve));
        this.process.kill("SIGKILL");
        await ended;
    }

    /** The status and the JSON body of an answer. */
    async call(method, path, body, token) {
        const headers = { "Content-Type": "application/json" };
        if (token) headers.Authorization = `Bearer ${token}`;
        const answer = await fetch(this.base + path, { method, headers, body: body && JSON.stringify(body) });
        return { status: answer.status, body: await answer.json() };
    }

    /** The body of an answer that must be a success. */
    async ok(method, path, body, token) {
        const answer = await this.call(method, path, body, token);
        if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
        return answer.body;
    }

    /** A new account, whatever registration asks for: `user_id`, `access_token`, `device_id`. */
    async account(username, password) {
        const path = "/_synapse/admin/v1/register";
        const { nonce } = await this.ok("GET", path);
        const mac = createHmac("sha1", SHARED_SECRET).update([nonce, username, password, "notadmin"].join("\0")).digest("hex");
        return await this.ok("POST", path, { nonce, username, password, mac });
    }
}
