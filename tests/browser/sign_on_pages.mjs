// Single sign-on (spec: Client-Server API, SSO client login/authentication): from a client's page to an
// identity provider, back, and into an account.

import { Person, expectOnly, expectStyled, expectText } from "./browser.mjs";
import { expect, expectSame, step } from "./report.mjs";
import { V3 } from "./server.mjs";

const REDIRECT = `${V3}/login/sso/redirect`;
const CALLBACK = "/_matrix/millrace/sso/callback";
const PARTS = ["h1", "p", "a", "strong"];
const MARKUP = '"><img src=x onerror=alert(1)><script>alert(2)</script>';
export const PROVIDER_NAME = "Corp <img src=x onerror=alert(1)>";

const redirectTo = (base, url, provider = "") => `${base}${REDIRECT}${provider}?${new URLSearchParams({ redirectUrl: url })}`;
const agree = (page) => page.getByRole("button", { name: "Agree" }).click();
const arrival = (page, clientPage) => page.waitForURL((url) => url.href.startsWith(clientPage.base.replace("localhost", url.hostname)));

/** What the client's page does with the token that it was sent. */
async function logIn(page, base) {
    return await page.evaluate(async (url) => {
        const token = new URLSearchParams(window.location.search).get("loginToken");
        const headers = { "Content-Type": "application/json" };
        const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ type: "m.login.token", token }) });
        return { status: response.status, body: await response.json() };
    }, `${base}${V3}/login`);
}

export async function signsOn({ browser, server, clientPage, provider }) {
    const person = await Person.at(browser);
    const { page } = person;
    const here = `${clientPage.base}/app?room=a%26b#/login`;
    let ann, spent;

    await step("somebody chooses a provider, agrees there, and is asked before the client gets a token", async () => {
        await page.goto(redirectTo(server.base, here));
        await expectStyled(page);
        await expectText(page, PROVIDER_NAME);
        await expectOnly(page, PARTS);
        await page.getByRole("link", { name: PROVIDER_NAME }).click();
        await expectText(page, "The provider");
        await agree(page);
        await expectText(page, "Log in to localhost?");
        await expectText(page, "@ann:localhost");
        await expectOnly(page, PARTS);
        spent = page.url();
        await page.getByRole("link", { name: "Go on to localhost" }).click();
        await expectText(page, "A client");
    });

    await step("the client's page is where it was, and logs in with the token, once", async () => {
        const url = new URL(page.url());
        expectSame([url.pathname, url.searchParams.get("room"), url.hash], ["/app", "a&b", "#/login"]);
        expectSame(await page.evaluate(() => document.referrer), "");
        const login = await logIn(page, server.base);
        expectSame([login.status, login.body.user_id], [200, "@ann:localhost"]);
        ann = login.body;
        const who = await server.ok("GET", `${V3}/account/whoami`, undefined, ann.access_token);
        expectSame(who.user_id, "@ann:localhost");
        const again = await logIn(page, server.base);
        expectSame([again.status, again.body.errcode], [403, "M_FORBIDDEN"]);
    });

    await step("going back to a sign-on that is over, or loading it again, gives no second token", async () => {
        await page.goBack();
        await expectText(page, "begin again");
        await page.goto(spent);
        await expectText(page, "begin again");
        person.expectNoComplaints();
    });

    await step("whoever refuses at the provider is told so, and what the provider says is only text", async () => {
        for (const refusal of ["You refused", MARKUP]) {
            provider.refusal = refusal;
            await page.goto(redirectTo(server.base, here, "/corp"));
            await page.getByRole("button", { name: "Refuse" }).click();
            await expectText(page, "You could not be logged in");
            await expectText(page, refusal);
            await expectOnly(page, PARTS);
        }
        await page.goto(`${server.base}${CALLBACK}?error=${encodeURIComponent(MARKUP)}&state=x`);
        await expectText(page, MARKUP);
        await expectOnly(page, PARTS);
        person.expectNoComplaints();
    });

    await step("a made-up answer of a provider, and one that another browser asked for, give nothing", async () => {
        await page.goto(`${server.base}${CALLBACK}?state=${encodeURIComponent(MARKUP)}&code=${encodeURIComponent(MARKUP)}`);
        await expectText(page, "begin again");
        await expectOnly(page, PARTS);
        const other = await Person.at(browser);
        provider.holdsBack = true;
        await page.goto(redirectTo(server.base, here, "/corp"));
        await agree(page);
        const url = await page.getByRole("link").getAttribute("href");
        provider.holdsBack = false;
        await other.page.goto(url);
        await expectText(other.page, "begin again");
        await page.goto(url);
        await expectText(page, "Log in to localhost?");
        other.expectNoComplaints();
        await other.leave();
        person.expectNoComplaints();
    });

    await step("addresses of clients that are programmes, and providers that do not exist, are refused", async () => {
        const addresses = ["javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "vbscript:x", MARKUP];
        for (const [url, where] of [...addresses.map((one) => [one, ""]), [here, `/${encodeURIComponent(MARKUP)}`]]) {
            const answer = await page.goto(redirectTo(server.base, url, where));
            expect([400, 404].includes(answer.status()), `${url}: ${answer.status()}`);
            await expectText(page, "That did not work");
            await expectStyled(page);
            await expectOnly(page, PARTS);
        }
        person.expectNoComplaints();
    });

    await step("markup in a client's address and in a provider's claims is text", async () => {
        const address = `${clientPage.base}/app?${new URLSearchParams({ x: MARKUP })}`;
        await page.goto(redirectTo(server.base, address));
        await expectOnly(page, PARTS);
        await page.getByRole("link", { name: PROVIDER_NAME }).click();
        await agree(page);
        await expectOnly(page, PARTS);
        await page.getByRole("link", { name: "Go on to localhost" }).click();
        await arrival(page, clientPage);
        expectSame(new URL(page.url()).searchParams.get("x"), MARKUP);
        provider.person = { sub: "evil", preferred_username: MARKUP, name: MARKUP };
        await page.goto(redirectTo(server.base, here, "/corp"));
        await agree(page);
        await page.locator("h1").waitFor();
        await expectOnly(page, PARTS);
        person.expectNoComplaints();
    });

    await step("whose name has an account already gets another one", async () => {
        await server.account("existing", "password");
        provider.person = { sub: "3", preferred_username: "existing", name: "X" };
        await page.goto(redirectTo(server.base, here, "/corp"));
        await agree(page);
        await expectText(page, "@existing2:localhost");
        provider.person = { sub: "1", preferred_username: "ann", name: "Ann" };
        person.expectNoComplaints();
    });

    await step("a client on a host that is known gets its token at once", async () => {
        await page.goto(redirectTo(server.base, here.replace("localhost", "127.0.0.1"), "/corp"));
        await agree(page);
        await arrival(page, clientPage);
        const login = await logIn(page, server.base);
        expectSame(login.body.user_id, "@ann:localhost");
        person.expectNoComplaints();
    });

    await step("an operation is confirmed by signing on in a window of the client, and not as somebody else", async () => {
        await page.goto(clientPage.base);
        const path = `${V3}/delete_devices`;
        const body = { devices: [ann.device_id] };
        const asked = await server.call("POST", path, body, ann.access_token);
        expect(asked.body.flows.some(({ stages }) => stages.includes("m.login.sso")), JSON.stringify(asked.body));
        body.auth = { session: asked.body.session };
        const url = `${server.base}${V3}/auth/m.login.sso/fallback/web?session=${asked.body.session}`;
        const popup = await person.popup(() => page.evaluate((to) => void window.open(to), url));
        const confirm = async () => {
            await popup.goto(url);
            await expectText(popup, "Confirm that it is you");
            await popup.getByRole("link", { name: PROVIDER_NAME }).click();
            await agree(popup);
        };
        provider.person = { sub: "2", preferred_username: "mallory", name: "Mallory" };
        await popup.goto(redirectTo(server.base, here, "/corp"));
        await agree(popup);
        await expectText(popup, "@mallory:localhost");
        await confirm();
        await expectText(popup, "You have signed on as somebody else");
        expectSame((await server.call("POST", path, body, ann.access_token)).status, 401);
        provider.person = { sub: "1", preferred_username: "ann", name: "Ann" };
        await confirm();
        await expectText(popup, "Thank you");
        await page.waitForFunction(() => said.length > 0);
        expectSame(await page.evaluate(() => said), [{ data: "authDone", origin: server.base }]);
        await server.ok("POST", path, body, ann.access_token);
        person.expectNoComplaints();
    });

    await step("a made-up session is refused after signing on", async () => {
        await page.goto(`${server.base}/_matrix/millrace/sso/confirm?idp=corp&session=${encodeURIComponent(MARKUP)}`);
        await agree(page);
        await expectText(page, "Begin again in your client.");
        await expectOnly(page, PARTS);
        person.expectNoComplaints();
    });
    await person.leave();
}
