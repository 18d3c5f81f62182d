// Where the links in mails lead, and the page on which users agree to documents.

import { expectOnly, expectStyled, expectText } from "./browser.mjs";
import { expect, expectSame, step } from "./report.mjs";
import { V3 } from "./server.mjs";

const PARTS = ["h1", "p", "a", "form", "input", "button", "ul", "li"];
const MARKUP = '"><img/src=x/onerror=alert(1)><script>alert(2)</script>';

const askForMail = (server, purpose, email, more, token) =>
    server.ok("POST", `${V3}/${purpose}/email/requestToken`, { client_secret: "secret", email, send_attempt: 1, ...more }, token);

export async function followsLinksInMails({ server, client, clientPage, mail, alice }) {
    const { page } = client;
    await step("an added address is confirmed, and where the client wants people to go is a link without markup", async () => {
        const next = `${clientPage.base}/${MARKUP}`;
        const asked = await askForMail(server, "account/3pid", "second@example.org", { next_link: next }, alice.access_token);
        await page.goto(await mail.link("second@example.org"));
        await expectText(page, "Your e-mail address is confirmed");
        await expectStyled(page);
        await expectOnly(page, PARTS);
        const [link] = await page.getByRole("link").all();
        expectSame(await link.getAttribute("href"), next);
        await link.click();
        await expectText(page, "A client");
        expectSame(await page.evaluate(() => document.referrer), "");
        const body = { sid: asked.sid, client_secret: "secret" };
        const answer = await server.call("POST", `${V3}/account/3pid/add`, body, alice.access_token);
        expectSame(answer.status, 401);
        client.expectNoComplaints();
    });

    await step("a made-up link is called invalid", async () => {
        const query = new URLSearchParams({ sid: MARKUP, token: MARKUP });
        await page.goto(`${server.base}/_matrix/millrace/email/submit_token?${query}`);
        await expectText(page, "This link is not valid");
        await expectOnly(page, PARTS);
        client.expectNoComplaints();
    });

    await step("a new password is set only after a button is pressed", async () => {
        const asked = await askForMail(server, "account/password", "alice@example.org", { client_secret: "other" });
        const auth = { type: "m.login.email.identity", threepid_creds: { sid: asked.sid, client_secret: "other" } };
        const set = () => server.call("POST", `${V3}/account/password`, { new_password: "a new one", auth });
        await page.goto(await mail.link("alice@example.org"));
        await expectText(page, "Set a new password");
        await expectStyled(page);
        await expectOnly(page, PARTS);
        expectSame((await set()).status, 401);
        await page.getByRole("button").click();
        await expectText(page, "it can go on with the new password");
        expectSame((await set()).status, 200);
        await page.reload();
        expect((await page.locator("h1").innerText()) !== "", "nothing is said");
        const identifier = { type: "m.id.user", user: "alice" };
        const login = await server.ok("POST", `${V3}/login`, { type: "m.login.password", identifier, password: "a new one" });
        Object.assign(alice, login);
        client.expectNoComplaints();
    });
}

export async function endsMails({ server, client, mail, alice, other }) {
    const { page } = client;
    await step("mails about unread messages are ended by the button behind their link", async () => {
        const address = "alice@example.org";
        await server.ok("POST", `${V3}/pushers/set`, { kind: "email", app_id: "m.email", pushkey: address, lang: "en",
            app_display_name: "Mail", device_display_name: address, data: {} }, alice.access_token);
        const { room_id: room } = await server.ok("POST", `${V3}/createRoom`, { preset: "public_chat" }, alice.access_token);
        await server.ok("POST", `${V3}/rooms/${room}/join`, {}, other.access_token);
        const message = { msgtype: "m.text", body: "<img src=x onerror=alert(1)>" };
        await server.ok("PUT", `${V3}/rooms/${room}/send/m.room.message/1`, message, other.access_token);
        await page.goto(await mail.link(address));
        await expectText(page, `no more mails of localhost about unread messages to ${address}`);
        await expectStyled(page);
        await expectOnly(page, PARTS);
        const pushers = async () => (await server.ok("GET", `${V3}/pushers`, undefined, alice.access_token)).pushers.length;
        expectSame(await pushers(), 1);
        await page.getByRole("button").click();
        await expectText(page, "No more mails about unread messages");
        expectSame(await pushers(), 0);
        await page.reload();
        await expectText(page, "No more mails about unread messages");
        const link = page.url();
        for (const proof of [`proof=${encodeURIComponent(MARKUP)}`, ""]) {
            await page.goto(link.replace(/proof=[^&]*/, proof));
            await expectText(page, "This link is not valid");
            await expectOnly(page, PARTS);
        }
        client.expectNoComplaints();
    });
}

export async function agreesToDocuments({ server, client }) {
    const { page } = client;
    await step("a user agrees to the documents on the page that a refusal names, and may go on", async () => {
        const frank = await server.account("frank", "password");
        const create = () => server.call("POST", `${V3}/createRoom`, {}, frank.access_token);
        const refused = await create();
        expectSame([refused.status, refused.body.errcode], [403, "M_CONSENT_NOT_GIVEN"]);
        const address = refused.body.consent_uri;
        await page.goto(address);
        await expectText(page, "You are @frank:localhost.");
        await expectText(page, "Privacy <policy>");
        await expectStyled(page);
        await expectOnly(page, PARTS);
        await page.getByRole("button", { name: "I agree" }).click();
        await expectText(page, "Thank you");
        expectSame((await create()).status, 200);
        await page.reload();
        await expectText(page, "Thank you");
        await page.goto(address);
        await expectText(page, "You have agreed to these");
        expectSame(await page.getByRole("button").count(), 0);
        for (const name of ["u", "h"]) {
            const wrong = new URL(address);
            wrong.searchParams.set(name, MARKUP);
            await page.goto(wrong.href);
            await expectText(page, "This is not the link that your client shows you");
            await expectStyled(page);
            await expectOnly(page, PARTS);
        }
        client.expectNoComplaints();
    });
}
