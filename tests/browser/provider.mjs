// An identity provider (OpenID Connect) with a page on which people agree or refuse.

import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { createServer } from "node:http";
import { listen } from "./server.mjs";

export const CLIENT = { id: "matrix", secret: "a secret" };

/** Starts it. `person` is who signs on next, as claims; `refusal` is what it says where people refuse;
 *  where it `holdsBack`, it shows where it would send the browser. */
export async function startProvider() {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const codes = new Map(); // given out, with what was asked
    const provider = { person: { sub: "1", preferred_username: "ann", name: "Ann" }, refusal: "", holdsBack: false };
    const part = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");

    function idToken(nonce) {
        const now = Math.floor(Date.now() / 1000);
        const claims = { iss: provider.issuer, sub: provider.person.sub, aud: CLIENT.id, iat: now, exp: now + 60, nonce };
        const signed = `${part({ alg: "ES256", kid: "k" })}.${part(claims)}`;
        const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
        return `${signed}.${signature.toString("base64url")}`;
    }

    /** A code is good once, and for whoever has the verifier (PKCE). */
    function tokens(form, authorization) {
        const asked = codes.get(form.get("code"));
        codes.delete(form.get("code"));
        const challenge = createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url");
        const login = Buffer.from(`${CLIENT.id}:${encodeURIComponent(CLIENT.secret)}`).toString("base64");
        const good = asked?.get("code_challenge") === challenge && asked.get("code_challenge_method") === "S256" &&
            asked.get("redirect_uri") === form.get("redirect_uri") && authorization === `Basic ${login}`;
        if (!good) return { status: 400, body: { error: "invalid_grant" } };
        return { body: { access_token: "bearer", token_type: "Bearer", id_token: idToken(asked.get("nonce")) } };
    }

    function agreed(asked) {
        const code = randomBytes(8).toString("hex");
        codes.set(code, asked);
        return back(asked, { code });
    }

    function back(asked, said) {
        return `${asked.get("redirect_uri")}?${new URLSearchParams({ ...said, state: asked.get("state") })}`;
    }

    const pages = {
        "/.well-known/openid-configuration": () => ({ body: {
            issuer: provider.issuer,
            authorization_endpoint: `${provider.issuer}/authorize`,
            token_endpoint: `${provider.issuer}/token`,
            userinfo_endpoint: `${provider.issuer}/userinfo`,
            jwks_uri: `${provider.issuer}/keys`,
        } }),
        "/keys": () => ({ body: { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "k", use: "sig" }] } }),
        "/authorize": ({ query }) => ({ html: `<h1>The provider</h1><form method="post" action="/decide?${query}">
            <button name="answer" value="yes">Agree</button><button name="answer" value="no">Refuse</button></form>` }),
        "/decide": ({ query, form }) => {
            if (form.get("answer") === "no") {
                return { location: back(query, { error: "access_denied", error_description: provider.refusal }) };
            }
            const location = agreed(query);
            return provider.holdsBack ? { html: `<a href="${location.replaceAll("&", "&amp;")}">Go back</a>` } : { location };
        },
        "/token": ({ form, authorization }) => tokens(form, authorization),
        "/userinfo": () => ({ body: provider.person }),
    };

    const server = createServer(async (request, response) => {
        const url = new URL(request.url, "http://localhost");
        let body = "";
        for await (const chunk of request) body += chunk;
        const asked = { query: url.searchParams, form: new URLSearchParams(body), authorization: request.headers.authorization };
        const { status = 200, body: json, html, location } = pages[url.pathname]?.(asked) ?? { status: 404, html: "" };
        if (location) return response.writeHead(302, { Location: location }).end();
        const type = json ? "application/json" : "text/html";
        response.writeHead(status, { "Content-Type": type }).end(json ? JSON.stringify(json) : html);
    });
    // Another site than the homeserver's 127.0.0.1, as it is in the world: cookies are careful about that.
    provider.issuer = `http://localhost:${await listen(server)}`;
    provider.end = () => server.close();
    return provider;
}
