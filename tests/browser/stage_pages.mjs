// The stages of user-interactive authentication on pages (spec: Client-Server API, Fallback).

import { expectOnly, expectStyled, expectText } from "./browser.mjs";
import { expect, expectSame, step } from "./report.mjs";
import { V3 } from "./server.mjs";

export const TOKEN = 'open "sesame" & <more>'; // what has to be written with care, in forms and in pages
const PAGE_PARTS = ["h1", "p", "form", "input", "button", "script", "strong", "ul", "li", "a", "div"];
const PASSWORD = "correct hörse + 100% & battery=stäple 🐎";

const stageUrl = (base, stage, session) =>
    `${base}${V3}/auth/${encodeURIComponent(stage)}/fallback/web?session=${encodeURIComponent(session)}`;

/** In place of Google's script, which loads another, a frame and a style as that does. */
const CAPTCHA_SCRIPT = `
const script = document.createElement("script");
script.src = "https://www.gstatic.com/recaptcha/releases/x/recaptcha__en.js";
document.head.append(script);`;
const CAPTCHA_MORE = `
const place = document.querySelector(".g-recaptcha");
place.style.border = "1px solid";
place.innerHTML = '<iframe src="https://www.recaptcha.net/recaptcha/api2/anchor"></iframe>' +
    '<textarea name="g-recaptcha-response"></textarea>';`;

async function standInForCaptcha(person) {
    person.isStoodIn = (url) => /^https:\/\/www\.(recaptcha\.net|gstatic\.com)\/recaptcha\//.test(url);
    const serve = (url, contentType, body) => person.context.route(url, (route) => route.fulfill({ contentType, body }));
    await serve("https://www.recaptcha.net/recaptcha/api.js", "text/javascript", CAPTCHA_SCRIPT);
    await serve("https://www.gstatic.com/**", "text/javascript", CAPTCHA_MORE);
    await serve("https://www.recaptcha.net/recaptcha/api2/**", "text/html", "<p>I am not a robot");
}

/** A client opens the page of a stage, as the specification's example does. */
async function open(client, base, stage, session) {
    const url = stageUrl(base, stage, session);
    await client.page.evaluate(() => said.splice(0));
    return await client.popup(() => client.page.evaluate((to) => void window.open(to), url));
}

/** The page is done, and told its client so. */
async function expectDone(client, popup, base) {
    await expectText(popup, "Thank you");
    await client.page.waitForFunction(() => said.length > 0);
    expectSame(await client.page.evaluate(() => said), [{ data: "authDone", origin: base }]);
}

const go = (page) => page.getByRole("button", { name: "Go on" }).click();
const completed = async (server, path, body) => (await server.call("POST", path, body)).body.completed ?? [];

/** Registers with every stage on its page. */
export async function registersOnPages({ server, client, clientPage, mail }) {
    const path = `${V3}/register`;
    const body = { username: "alice", password: PASSWORD };
    const stages = {};
    let session, alice;
    await standInForCaptcha(client);
    await client.page.goto(clientPage.base);

    await step("registration names its stages", async () => {
        const { status, body: begun } = await server.call("POST", path, body);
        expectSame(status, 401);
        session = begun.session;
        body.auth = { session };
        expectSame(begun.flows.length, 1);
        expectSame([...begun.flows[0].stages].sort(), ["m.login.email.identity", "m.login.recaptcha",
            "m.login.registration_token", "m.login.terms"]);
    });

    await step("a wrong token is refused on the page, and the right one completes the stage", async () => {
        const popup = await open(client, server.base, "m.login.registration_token", session);
        await expectText(popup, "Enter the word that you were given.");
        await expectStyled(popup);
        await popup.locator("[name=token]").fill('"><img src=x onerror=alert(1)>');
        await go(popup);
        await expectText(popup, "not valid");
        await expectOnly(popup, PAGE_PARTS);
        await popup.locator("[name=token]").fill(TOKEN);
        expectSame(await completed(server, path, body), []);
        await go(popup);
        await expectDone(client, popup, server.base);
        expectSame(await completed(server, path, body), ["m.login.registration_token"]);
        stages.token = popup;
    });

    await step("the page after a stage does no harm when it is loaded again or gone back from", async () => {
        await stages.token.reload();
        await expectText(stages.token, "Thank you");
        await stages.token.goto(stageUrl(server.base, "m.login.registration_token", session));
        await stages.token.goBack();
        expectSame(await completed(server, path, body), ["m.login.registration_token"]);
        await stages.token.close();
    });

    await step("a captcha runs on the page under its policy, and only its solution completes the stage", async () => {
        const popup = await open(client, server.base, "m.login.recaptcha", session);
        await expectText(popup, "Are you a person?");
        await popup.frameLocator("iframe").getByText("I am not a robot").waitFor();
        await popup.locator("textarea").fill("guessed");
        await go(popup);
        await popup.locator("strong").waitFor();
        await popup.locator("textarea").fill("solved");
        await go(popup);
        await expectDone(client, popup, server.base);
        await popup.close();
    });

    await step("documents are linked, shown in a window of their own, and agreed to", async () => {
        const popup = await open(client, server.base, "m.login.terms", session);
        await expectText(popup, "Privacy <policy>");
        await expectOnly(popup, PAGE_PARTS);
        const document = await client.popup(() => popup.getByRole("link").click());
        await expectText(document, "A client"); // what is served there
        expect(await document.evaluate(() => window.opener === null), "the document can reach the page");
        expectSame(await document.evaluate(() => document.referrer), "");
        await document.close();
        await go(popup);
        await expectDone(client, popup, server.base);
        await popup.close();
    });

    await step("an address is proved on the page by the link of a mail", async () => {
        const popup = await open(client, server.base, "m.login.email.identity", session);
        const field = popup.locator("[name=email]");
        await field.evaluate((input) => (input.type = "text")); // a browser would refuse it before we do
        await field.fill("<img src=x onerror=alert(1)>");
        await go(popup);
        await expectText(popup, "That is no e-mail address");
        await expectOnly(popup, PAGE_PARTS);
        await popup.locator("[name=email]").fill("alice@example.org");
        await go(popup);
        await expectText(popup, "Look at your mail");
        await go(popup);
        await expectText(popup, "That is not done yet");
        const [link, reader] = [await mail.link("alice@example.org"), await client.context.newPage()];
        await reader.goto(link);
        await expectText(reader, "Your e-mail address is confirmed");
        await expectStyled(reader);
        await reader.close();
        await go(popup);
        await expectDone(client, popup, server.base);
        stages.email = popup;
    });

    await step("the client retries with the session alone, from its own site, and has an account", async () => {
        const answer = await client.page.evaluate(async ([url, sent]) => {
            const headers = { "Content-Type": "application/json" };
            const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(sent) });
            return { status: response.status, body: await response.json() };
        }, [server.base + path, body]);
        expectSame([answer.status, answer.body.user_id], [200, "@alice:localhost"]);
        const who = await server.ok("GET", `${V3}/account/whoami`, undefined, answer.body.access_token);
        expectSame(who.user_id, "@alice:localhost");
        alice = answer.body;
    });

    await step("a page of a dialogue that is over says so", async () => {
        await stages.email.reload();
        await expectText(stages.email, "There is no such dialogue");
        await expectStyled(stages.email);
        await stages.email.close();
        client.expectNoComplaints();
    });
    return alice;
}

/** Takes a stage, whichever it is, on the page that was opened for it. */
export async function takesStage(popup, { client, mail }) {
    const stage = new URL(popup.url()).pathname.split("/").at(-3);
    if (stage === "m.login.registration_token") await popup.locator("[name=token]").fill(TOKEN);
    if (stage === "m.login.recaptcha") await popup.locator("textarea").fill("solved");
    if (stage === "m.login.email.identity") {
        await popup.locator("[name=email]").fill("alice@example.org");
        await go(popup);
        await expectText(popup, "belongs to an account already");
        await expectStyled(popup);
        await popup.goBack();
        await popup.locator("[name=email]").fill("emil@example.org");
        await go(popup);
        const [link, reader] = [await mail.link("emil@example.org"), await client.context.newPage()];
        await reader.goto(link);
        await reader.close();
    }
    await go(popup);
}

/** Confirms an operation with a password, in a browser within a client (`onAuthDone`). */
export async function confirmsWithPassword({ server, client }) {
    const path = `${V3}/delete_devices`;
    const carol = await server.account("carol", PASSWORD);
    const body = { devices: [carol.device_id] };
    const page = await client.context.newPage();
    let calls = 0;
    await page.exposeFunction("onAuthDone", () => (calls += 1));

    async function begin() {
        const asked = await server.call("POST", path, body, carol.access_token);
        body.auth = { session: asked.body.session };
        await page.goto(stageUrl(server.base, "m.login.password", asked.body.session));
    }
    async function confirm(user, password) {
        await page.locator("[name=user]").fill(user);
        await page.locator("[name=password]").fill(password);
        await go(page);
    }

    await step("a mistyped name is told on the page, which can be filled in again", async () => {
        await begin();
        await confirm('"><img src=x onerror=alert(1)>', PASSWORD);
        await expectText(page, "Wrong username or password");
        await expectOnly(page, PAGE_PARTS);
        expectSame(await page.locator("[name=user]").count(), 1);
    });

    await step("a password of any letters is confirmed on a page, which calls onAuthDone", async () => {
        await begin();
        await confirm("carol", `${PASSWORD}!`);
        await expectText(page, "Wrong username or password");
        expectSame(calls, 0);
        await confirm("carol", PASSWORD);
        await expectText(page, "Thank you");
        expectSame(calls, 1);
        await server.ok("POST", path, body, carol.access_token);
        client.expectNoComplaints();
    });
    await page.close();
}

/** Addresses that somebody made up. */
export async function refusesMadeUpAddresses({ server, client }) {
    await step("markup in a made-up address of a stage is shown as it is, or not at all", async () => {
        const page = await client.context.newPage();
        const markup = '"><img src=x onerror=alert(1)><script>alert(2)</script>';
        for (const stage of ["m.login.dummy", "m.login.terms", "m.login.sso", "m.login.email.identity", markup]) {
            const answer = await page.goto(stageUrl(server.base, stage, markup));
            expectSame(answer.status(), 404);
            await expectText(page, "There is no such dialogue");
            await expectStyled(page);
            await expectOnly(page, PAGE_PARTS);
        }
        await page.close();
        client.expectNoComplaints();
    });
}
