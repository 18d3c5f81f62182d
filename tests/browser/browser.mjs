// Chromium, and what its pages complain about.

import { chromium } from "playwright-core";
import { expect } from "./report.mjs";

const LIMIT_MS = 20_000; // for anything a page has to do; far more than it takes

export async function startChromium() {
    return await chromium.launch({
        executablePath: process.env.CHROMIUM, // `run` finds it
        args: [
            // It shows nothing but the test's own pages, and root may not use the sandbox.
            "--no-sandbox",
            // No name is looked up, so that nothing leaves this machine.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ],
    });
}

const isComplaint = (text) => /content security policy|refused to|blocked by cors/i.test(text);
const isHere = (url) => !/^https?:/.test(url) || ["127.0.0.1", "localhost"].includes(new URL(url).hostname);

/** Somebody at a browser: cookies and windows of their own, and a note of all that went wrong there. */
export class Person {
    static async at(browser, options = {}) {
        const person = new Person();
        person.context = await browser.newContext(options);
        person.context.setDefaultTimeout(LIMIT_MS);
        person.complaints = [];
        person.isStoodIn = () => false;
        person.context.on("console", (message) => {
            if (isComplaint(message.text())) person.complaints.push(message.text());
        });
        person.context.on("weberror", (error) => person.complaints.push(String(error.error())));
        person.context.on("request", (request) => {
            if (!isHere(request.url()) && !person.isStoodIn(request.url())) person.complaints.push(`a request to ${request.url()}`);
        });
        // What an injected script would do.
        person.context.on("dialog", (dialog) => {
            person.complaints.push(`a script says ${dialog.message()}`);
            dialog.dismiss();
        });
        person.page = await person.context.newPage();
        return person;
    }

    /** Nothing was blocked, no script failed, and nobody else was asked. */
    expectNoComplaints() {
        const complaints = this.complaints.splice(0);
        expect(complaints.length === 0, `the browser complains: ${complaints.join("; ")}`);
    }

    /** What was complained about since the last time. */
    takeComplaints() {
        return this.complaints.splice(0);
    }

    /** The window that `action` opens. */
    async popup(action) {
        const [popup] = await Promise.all([this.context.waitForEvent("page"), action()]);
        await popup.waitForLoadState();
        return popup;
    }

    async leave() {
        await this.context.close();
    }
}

/** The page says this to whoever looks at it. */
export async function expectText(page, text) {
    const body = page.locator("body");
    await body.getByText(text).first().waitFor().catch(async () => {
        throw new Error(`${page.url()} does not say "${text}" but: ${await body.innerText()}`);
    });
}

/** No markup of what came from outside: what people see of a page are these elements, by name. */
export async function expectOnly(page, allowed) {
    const names = await page.evaluate(() => [...document.body.querySelectorAll("*")].map((one) => one.localName));
    const strangers = names.filter((name) => !allowed.includes(name));
    expect(strangers.length === 0, `${page.url()} has ${strangers.join(", ")}`);
}

/** It looks as the layout wants it: the style sheet was not blocked. */
export async function expectStyled(page) {
    const family = await page.evaluate(() => getComputedStyle(document.body).fontFamily);
    expect(family === "sans-serif", `${page.url()} has no style: ${family}`);
}
