// Starts servers and a browser, lets people use the pages, and counts the steps that held. Called by `run`.

import { build } from "esbuild";
import { createServer } from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { logsInOnPage, registersOnPage, registersOnPageWithStages, signsOnOnPage } from "./account_pages.mjs";
import { Person, startChromium } from "./browser.mjs";
import { startClientPage } from "./client_page.mjs";
import { startMail } from "./mail.mjs";
import { agreesToDocuments, endsMails, followsLinksInMails } from "./mail_pages.mjs";
import { refusesFrames, talksThroughSdk, usesApiFromElsewhere } from "./other_origin.mjs";
import { CLIENT, startProvider } from "./provider.mjs";
import { failures, sum } from "./report.mjs";
import { Millrace, freePort, listen } from "./server.mjs";
import { PROVIDER_NAME, signsOn } from "./sign_on_pages.mjs";
import { TOKEN, confirmsWithPassword, refusesMadeUpAddresses, registersOnPages, takesStage } from "./stage_pages.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const text = JSON.stringify; // a text of TOML is written as one of JSON

/** A service that takes one solution of captchas. */
async function startCaptchas() {
    const server = createServer(async (request, response) => {
        let form = "";
        for await (const chunk of request) form += chunk;
        const success = new URLSearchParams(form).get("response") === "solved";
        response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ success }));
    });
    return { port: await listen(server), end: () => server.close() };
}

/** A server that wants everything that has a page. */
async function startStrict(folder, { mail, captchas, provider, clientPage }) {
    const port = await freePort();
    const providers = ["corp", "other"].map((id) => `{ id = "${id}", name = ${text(id === "corp" ? PROVIDER_NAME : "Other")},
        issuer = ${text(provider.issuer)}, client_id = ${text(CLIENT.id)}, client_secret = ${text(CLIENT.secret)} }`);
    const terms = `{ id = "privacy", version = "1", language = "en", name = "Privacy <policy>", url = "${clientPage.base}/privacy" }`;
    return await Millrace.start(process.env.MILLRACE_BIN, folder, port, `
registration_token = ${text(TOKEN)}
registrations_require_3pid = ["email"]
terms = [${terms}]
require_consent = true
recaptcha_public_key = "public"
recaptcha_private_key = "private"
recaptcha_siteverify_api = "http://127.0.0.1:${captchas.port}/"
sso_providers = [${providers.join(", ").replaceAll("\n", " ")}]
sso_redirect_hosts = ["127.0.0.1"]
[global.well_known]
client = "http://127.0.0.1:${port}"
[global.email]
smtp_host = "127.0.0.1"
smtp_port = ${mail.port}
smtp_security = "none"
from = "no-reply@example.org"
app_name = "Mill <b>race</b>"
[global.push]
mail_delay_s = 1
[global.rate_limits]
enabled = false
`);
}

/** Logins are limited as they are by default; all accounts here come from one address. */
const OPEN = `
[global.rate_limits]
registration = { per_second = 100.0, burst = 100 }
`;

/** What the page of the SDK's client is made of. */
async function sdkPage() {
    const made = await build({ entryPoints: [join(HERE, "sdk_page.mjs")], bundle: true, write: false, format: "esm",
        target: "es2022", logLevel: "error" });
    const wasm = "pkg/matrix_sdk_crypto_wasm_bg.wasm"; // sought beside the script
    const page = '<!DOCTYPE html><title>A client</title><body><script type="module" src="/sdk.js"></script>';
    return {
        "/sdk": { type: "text/html", content: page },
        [`/${wasm}`]: {
            type: "application/wasm",
            content: readFileSync(join(HERE, "node_modules/@matrix-org/matrix-sdk-crypto-wasm", wasm)),
        },
        "/sdk.js": { type: "text/javascript", content: made.outputFiles[0].contents },
    };
}

async function usePages(folder, browser, started) {
    const clientPage = await startClientPage(await sdkPage());
    const [mail, captchas, provider] = await Promise.all([startMail(), startCaptchas(), startProvider()]);
    started.push(clientPage, mail, captchas, provider);

    const strict = await startStrict(`${folder}/strict`, { mail, captchas, provider, clientPage });
    started.push(strict);
    const client = await Person.at(browser);
    const all = { browser, server: strict, client, person: client, clientPage, mail, provider };
    const alice = await registersOnPages(all);
    const emil = await registersOnPageWithStages({ ...all, takeStage: (popup) => takesStage(popup, all) });
    await confirmsWithPassword(all);
    await refusesMadeUpAddresses(all);
    await agreesToDocuments(all);
    await followsLinksInMails({ ...all, alice });
    await endsMails({ ...all, alice, other: emil });
    await client.leave();
    await signsOn(all);
    await signsOnOnPage(all);

    const open = await Millrace.start(process.env.MILLRACE_BIN, `${folder}/open`, await freePort(), OPEN);
    started.push(open);
    const person = await Person.at(browser);
    const plain = { browser, server: open, person, clientPage };
    await registersOnPage(plain);
    await refusesFrames(plain);
    await usesApiFromElsewhere(plain);
    await talksThroughSdk(plain);
    await logsInOnPage(plain); // the last: it uses up the logins that are allowed
    await person.leave();
}

const folder = mkdtempSync(join(tmpdir(), "millrace-browser-"));
const browser = await startChromium();
const started = [];
try {
    await usePages(folder, browser, started);
} finally {
    await browser.close();
    for (const one of started.reverse()) {
        if (one instanceof Millrace && failures()) console.log(`The end of a millrace's log:\n${one.log()}`);
        await one.end();
    }
    rmSync(folder, { recursive: true });
}
process.exit(sum() ? 0 : 1);
