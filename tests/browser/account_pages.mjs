// Logging in and registering on pages (spec: Client-Server API, Login Fallback).

import { Person, expectStyled, expectText } from "./browser.mjs";
import { expect, expectSame, step } from "./report.mjs";
import { V3 } from "./server.mjs";
import { PROVIDER_NAME } from "./sign_on_pages.mjs";

/** What an app defines before it shows the page; `calls` has what it was told. */
async function inApp(person, object, name) {
    const page = await person.context.newPage();
    const calls = [];
    await page.exposeFunction("tellApp", (...said) => calls.push(said));
    await page.addInitScript(([where, what]) => {
        window[where] = { [what]: (...said) => window.tellApp(...said) };
    }, [object, name]);
    return { page, calls };
}

async function fill(page, user, password) {
    await page.locator("[name=user]").fill(user);
    await page.locator("[name=password]").fill(password);
    await page.getByRole("button").click();
}

export async function logsInOnPage({ server, person }) {
    await step("somebody logs in on the page, after a wrong password, as the device that the app names", async () => {
        await server.account("bob", "pässword & more");
        const { page, calls } = await inApp(person, "matrixLogin", "onLogin");
        const query = new URLSearchParams({ device_id: "PHONE", initial_device_display_name: "Bob's <b>phone</b>",
            refresh_token: "true" });
        await page.goto(`${server.base}/_matrix/static/client/login/?${query}`);
        await expectStyled(page);
        await fill(page, "bob", "wrong");
        await expectText(page, /wrong|invalid|incorrect|not/i);
        expectSame(calls.length, 0);
        await fill(page, "bob", "pässword & more");
        await expectText(page, "You are logged in.");
        const [[response]] = calls;
        expectSame([response.user_id, response.device_id], ["@bob:localhost", "PHONE"]);
        expectSame(typeof response.refresh_token, "string");
        await server.ok("GET", `${V3}/account/whoami`, undefined, response.access_token);
        const device = await server.ok("GET", `${V3}/devices/PHONE`, undefined, response.access_token);
        expectSame(device.display_name, "Bob's <b>phone</b>");
        await page.reload();
        expectSame(calls.length, 1);
        person.expectNoComplaints();
        await page.close();
    });
    await step("whoever guesses passwords on the page is told to wait", async () => {
        const page = await person.context.newPage();
        await page.goto(`${server.base}/_matrix/static/client/login/`);
        await fill(page, "bob", "a guess");
        for (let guesses = 1; guesses < 30; guesses++) {
            await page.waitForFunction(() => document.getElementById("failure").textContent !== "");
            if (/too many/i.test(await page.locator("#failure").innerText())) return await page.close();
            await page.evaluate(() => (document.getElementById("failure").textContent = ""));
            await page.getByRole("button").click();
        }
        throw new Error("30 guesses, and nothing was said");
    });
}

/** Logs in on the page by signing on at a provider. */
export async function signsOnOnPage({ browser, server, provider }) {
    const person = await Person.at(browser);
    const login = `${server.base}/_matrix/static/client/login/`;
    const chosen = { device_id: "WATCH & <b>", initial_device_display_name: "Una's + <b>watch</b>", refresh_token: "true" };

    const agree = (page) => page.getByRole("button", { name: "Agree" }).click();

    await step("somebody logs in on the page by a provider, as the device that the app names", async () => {
        provider.person = { sub: "una", preferred_username: "una", name: "Una" };
        const { page, calls } = await inApp(person, "matrixLogin", "onLogin");
        await page.goto(`${login}?${new URLSearchParams({ ...chosen, password: "not passed on" })}`);
        await expectStyled(page);
        expectSame(await page.locator("img").count(), 0);
        await page.getByRole("link", { name: `Log in with ${PROVIDER_NAME}` }).click();
        await agree(page);
        await expectText(page, "You are logged in.");
        expectSame(await page.getByRole("link").count(), 0);
        const [[response]] = calls;
        expectSame([response.user_id, response.device_id], ["@una:localhost", chosen.device_id]);
        expectSame(typeof response.refresh_token, "string");
        const path = `${V3}/devices/${encodeURIComponent(chosen.device_id)}`;
        const device = await server.ok("GET", path, undefined, response.access_token);
        expectSame(device.display_name, chosen.initial_device_display_name);
        const query = Object.fromEntries(new URL(page.url()).searchParams);
        expectSame(query, chosen); // no token, which is a credential
        await page.reload();
        await expectText(page, "Log in with");
        expectSame(calls.length, 1);
        person.expectNoComplaints();
        await page.close();
    });

    await step("a link of somebody else's to the page, by the provider, logs nobody in before a button is pressed", async () => {
        const { page, calls } = await inApp(person, "matrixLogin", "onLogin");
        const to = `${login}?device_id=TELEPHONE`;
        await page.goto(`${server.base}${V3}/login/sso/redirect/corp?${new URLSearchParams({ redirectUrl: to })}`);
        const [arrival] = await Promise.all([page.waitForRequest(/loginToken=/), agree(page)]);
        const button = page.getByRole("button", { name: "Go on and log in" });
        await button.waitFor();
        expectSame([page.url(), calls.length], [to, 0]);
        await button.click();
        await expectText(page, "You are logged in.");
        expectSame([calls[0][0].user_id, calls[0][0].device_id], ["@una:localhost", "TELEPHONE"]);
        await page.goto(arrival.url());
        await button.click();
        await expectText(page, "the login token is not valid");
        expectSame([calls.length, await page.getByRole("link").count()], [1, 2]);
        person.expectNoComplaints();
    });
    await person.leave();
}

export async function registersOnPage({ server, person }) {
    await step("somebody registers on the page, after a name that is taken, and the app is told", async () => {
        await server.account("taken", "password");
        const { page, calls } = await inApp(person, "matrixRegistration", "onRegistered");
        await page.goto(`${server.base}/_matrix/static/client/register/`);
        await expectStyled(page);
        await fill(page, "taken", "a password");
        await expectText(page, /taken|in use/i);
        await fill(page, "<img src=x onerror=alert(1)>", "a password");
        await expectText(page, "a username consists of");
        expectSame(await page.locator("img").count(), 0);
        await fill(page, "dora", "a password");
        await expectText(page, "Your account is there, and you are logged in.");
        const [[host, user, token]] = calls;
        expectSame([host, user], ["localhost", "@dora:localhost"]);
        await server.ok("GET", `${V3}/account/whoami`, undefined, token);
        person.expectNoComplaints();
        await page.close();
    });
}

/** Registers on the page of a server that has stages, each on a page that it opens. */
export async function registersOnPageWithStages({ server, person, takeStage }) {
    let emil;
    await step("the page opens the page of each stage, and goes on by itself when that is done", async () => {
        const { page, calls } = await inApp(person, "matrixRegistration", "onRegistered");
        await page.goto(`${server.base}/_matrix/static/client/register/?device_id=TABLET`);
        await fill(page, "emil", "a password");
        while (calls.length === 0) {
            const next = page.locator("button:visible", { hasText: "Go on" });
            const end = page.getByText("Your account is there");
            await next.or(end).waitFor();
            if (await end.isVisible()) break;
            const popup = await person.popup(() => next.click());
            await takeStage(popup);
            await expectText(popup, "Thank you");
            await popup.close();
        }
        const [[, user, token]] = calls;
        const who = await server.ok("GET", `${V3}/account/whoami`, undefined, token);
        expectSame([user, who.device_id], ["@emil:localhost", "TABLET"]);
        expect(!(await page.locator("button:visible").count()), "a button is left");
        emil = { access_token: token };
        person.expectNoComplaints();
        await page.close();
    });
    return emil;
}
