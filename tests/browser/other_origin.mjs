// A web client on another site: what a browser lets it do with the client API (spec: Client-Server API,
// Web Browser Clients), by plain requests and by matrix-js-sdk.

import { Person, expectText } from "./browser.mjs";
import { expect, expectSame, step } from "./report.mjs";
import { V3 } from "./server.mjs";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PASSWORD = "a password";

/** Gives the page `ask(method, path, body, more)`: status, headers that a script may read, and body. */
async function prepare(page, clientPage, base) {
    await page.goto(clientPage.base);
    await page.evaluate((server) => {
        window.ask = async (method, path, body, more = {}) => {
            const headers = { ...(window.token && { Authorization: `Bearer ${window.token}` }), ...more };
            if (typeof body === "object" && !(body instanceof Blob)) {
                headers["Content-Type"] ??= "application/json";
                body = JSON.stringify(body);
            }
            const response = await fetch(server + path, { method, headers, body, cache: "no-store" });
            const json = response.headers.get("Content-Type")?.startsWith("application/json");
            return { status: response.status, body: json ? await response.json() : await response.blob() };
        };
    }, base);
}

export async function usesApiFromElsewhere({ browser, server, clientPage }) {
    // No route may be set here: with one, Playwright itself answers what a browser asks before (OPTIONS).
    const person = await Person.at(browser);
    const { page } = person;
    await server.account("gina", PASSWORD);
    await prepare(page, clientPage, server.base);

    await step("a page elsewhere asks for versions, logs in and syncs", async () => {
        const [versions, login, sync] = await page.evaluate(async ([v3, password]) => {
            const versions = await ask("GET", "/_matrix/client/versions");
            const identifier = { type: "m.id.user", user: "gina" };
            const login = await ask("POST", `${v3}/login`, { type: "m.login.password", identifier, password });
            window.token = login.body.access_token;
            return [versions, login, await ask("GET", `${v3}/sync?timeout=0`)];
        }, [V3, PASSWORD]);
        expect(versions.body.versions.includes("v1.11"), JSON.stringify(versions));
        expectSame([login.status, sync.status, typeof sync.body.next_batch], [200, 200, "string"]);
    });

    await step("it uses every method that the API has", async () => {
        const statuses = await page.evaluate(async (v3) => {
            const room = (await ask("POST", `${v3}/createRoom`, {})).body.room_id;
            const tag = `${v3}/user/@gina:localhost/rooms/${encodeURIComponent(room)}/tags/m.favourite`;
            const answers = [await ask("PUT", tag, { order: 0.5 }), await ask("GET", tag.replace(/\/[^/]*$/, "")),
                await ask("DELETE", tag)];
            return answers.map((answer) => answer.status);
        }, V3);
        expectSame(statuses, [200, 200, 200]);
    });

    await step("it reads errors: of no endpoint, no token, a wrong method, wrong JSON, and too much", async () => {
        const got = await page.evaluate(async (v3) => {
            const kept = window.token;
            const answers = [await ask("GET", "/_matrix/client/v3/nonsense"), await ask("DELETE", `${v3}/sync`),
                await ask("POST", `${v3}/createRoom`, "{", { "Content-Type": "application/json" }),
                await ask("POST", `${v3}/createRoom`, { name: "x".repeat(21_000_000) })];
            window.token = "wrong";
            answers.push(await ask("GET", `${v3}/account/whoami`));
            window.token = kept;
            return answers.map(({ status, body }) => [status, body.errcode]);
        }, V3);
        expectSame(got, [[404, "M_UNRECOGNIZED"], [405, "M_UNRECOGNIZED"], [400, "M_NOT_JSON"], [413, "M_TOO_LARGE"],
            [401, "M_UNKNOWN_TOKEN"]]);
    });

    await step("it uploads, downloads and shows media", async () => {
        const got = await page.evaluate(async (png) => {
            const image = await (await fetch(`data:image/png;base64,${png}`)).blob();
            const upload = await ask("POST", "/_matrix/media/v3/upload?filename=dot.png", image, { "Content-Type": "image/png" });
            const media = upload.body.content_uri.replace("mxc://", "");
            const path = `/_matrix/client/v1/media`;
            const whole = await ask("GET", `${path}/download/${media}`);
            const part = await ask("GET", `${path}/download/${media}`, undefined, { Range: "bytes=0-3" });
            const thumbnail = await ask("GET", `${path}/thumbnail/${media}?width=32&height=32`);
            const without = await (window.token = "", ask("GET", `${path}/download/${media}`));
            const shown = document.createElement("img");
            shown.src = URL.createObjectURL(whole.body);
            await shown.decode();
            return [upload.status, whole.status, whole.body.type, whole.body.size === image.size, part.status, part.body.size,
                thumbnail.status, without.status, without.body.errcode, shown.naturalWidth];
        }, PNG);
        expectSame(got, [200, 200, "image/png", true, 206, 4, 200, 401, "M_MISSING_TOKEN", 1]);
    });

    await step("the browser blocked none of it", async () => person.expectNoComplaints());

    await step("markup that was uploaded as a page runs nothing on the homeserver's own site", async () => {
        const gina = await server.ok("POST", `${V3}/login`, { type: "m.login.password", password: PASSWORD,
            identifier: { type: "m.id.user", user: "gina" } });
        const token = { Authorization: `Bearer ${gina.access_token}` };
        for (const [type, name] of [["text/html", "x.html"], ["image/svg+xml", "x.svg"], ["application/xhtml+xml", "x.xhtml"]]) {
            const body = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`;
            const upload = await fetch(`${server.base}/_matrix/media/v3/upload?filename=${name}`,
                { method: "POST", headers: { ...token, "Content-Type": type }, body });
            const media = (await upload.json()).content_uri.replace("mxc://", "");
            const visitor = await Person.at(browser, { extraHTTPHeaders: token });
            const download = visitor.page.waitForEvent("download");
            await visitor.page.goto(`${server.base}/_matrix/client/v1/media/download/${media}`).catch(() => {}); // is saved instead
            expectSame((await download).suggestedFilename(), name);
            visitor.expectNoComplaints();
            await visitor.leave();
        }
    });
    await person.leave();
}

/** Else a page elsewhere could lay something over ours, and have people press what they do not see. */
export async function refusesFrames({ browser, server, clientPage }) {
    const person = await Person.at(browser);
    await step("no page elsewhere can show one of ours in a frame", async () => {
        await person.page.goto(clientPage.base);
        await person.page.evaluate(async (src) => {
            const frame = Object.assign(document.createElement("iframe"), { src });
            const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
            document.body.append(frame);
            await loaded;
        }, `${server.base}/_matrix/static/client/login/`);
        const [, frame] = person.page.frames();
        expect((await frame.content()).includes("matrixLogin") === false, "it is shown");
        expect(/refused to display/i.test(person.takeComplaints().join()), "the browser does not say why");
    });
    await person.leave();
}

export async function talksThroughSdk({ browser, server, clientPage }) {
    const people = [];
    await step("two browsers talk through matrix-js-sdk in an encrypted room", async () => {
        for (const name of ["hans", "ines"]) {
            await server.account(name, PASSWORD);
            const person = await Person.at(browser);
            people.push(person);
            await person.page.goto(`${clientPage.base}/sdk`);
            await expectText(person.page, "ready");
            await person.page.evaluate((asked) => start(asked), { base: server.base, name, password: PASSWORD });
        }
        const [hans, ines] = people.map((person) => person.page);
        const room = await hans.evaluate(() => invite("@ines:localhost"));
        await ines.evaluate((id) => joinAndSay(id, "hello from ines"), room);
        await hans.evaluate(([id, text]) => hears(id, text), [room, "hello from ines"]);
        await hans.evaluate(([id, text]) => say(id, text), [room, "hello from hans"]);
        await ines.evaluate(([id, text]) => hears(id, text), [room, "hello from hans"]);
        people.forEach((person) => person.expectNoComplaints());
    });
    for (const person of people) await person.leave();
}
