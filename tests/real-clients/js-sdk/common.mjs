// What the conversations of matrix-js-sdk share: steps, waiting, registering.

import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("silent");
export const quiet = {};
for (const level of ["trace", "debug", "info", "warn", "error"]) quiet[level] = () => {};
quiet.getChild = () => quiet;

export const PASSWORD = "correct horse battery staple";
const WAIT_MS = 60_000; // for what a long-poll has to bring; far more than it takes

export async function step(name, body) {
    try {
        await body();
    } catch (error) {
        console.log(`FAILED ${name}: ${error?.stack ?? error}`);
        process.exit(1);
    }
    console.log(`ok ${name}`);
}

export function expect(condition, message) {
    if (!condition) throw new Error(message);
}

/** Resolves once `found()` is true, looked at whenever the client has news. */
export function until(client, what, found) {
    return new Promise((resolve, reject) => {
        const news = [sdk.ClientEvent.Sync, sdk.ClientEvent.Room, sdk.RoomEvent.Timeline, sdk.RoomEvent.MyMembership,
            sdk.RoomStateEvent.Members, sdk.RoomEvent.Name, sdk.MatrixEventEvent.Decrypted];
        const stop = () => {
            clearTimeout(timer);
            news.forEach((name) => client.off(name, look));
        };
        const look = () => {
            if (!found()) return;
            stop();
            resolve();
        };
        const timer = setTimeout(() => {
            stop();
            reject(new Error(`${client.getUserId()} never saw ${what}`));
        }, WAIT_MS);
        news.forEach((name) => client.on(name, look));
        look();
    });
}

export async function register(base, name) {
    const client = sdk.createClient({ logger: quiet, baseUrl: base });
    try {
        await client.registerRequest({ username: name, password: PASSWORD });
        throw new Error("registered without any stage");
    } catch (error) {
        if (error.httpStatus !== 401) throw error;
        expect(error.data.flows.some((f) => f.stages.includes("m.login.dummy")), `flows: ${JSON.stringify(error.data)}`);
        const auth = { type: "m.login.dummy", session: error.data.session };
        return await client.registerRequest({ username: name, password: PASSWORD, auth });
    }
}

/** A client that is logged in and does not sync yet; `options` go to the SDK. */
export async function logIn(base, name, device, options = {}) {
    const asking = sdk.createClient({ logger: quiet, baseUrl: base });
    const { flows } = await asking.loginFlows();
    expect(flows.some((f) => f.type === "m.login.password"), "no password login");
    const login = await asking.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password: PASSWORD,
        initial_device_display_name: device,
    });
    return sdk.createClient({
        logger: quiet,
        baseUrl: base,
        userId: login.user_id,
        accessToken: login.access_token,
        deviceId: login.device_id,
        ...options,
    });
}

/** Syncs from now on, with so many events a room at first. */
export async function follow(client, initialSyncLimit) {
    await client.startClient({ initialSyncLimit, lazyLoadMembers: true, pollTimeout: 20_000 });
    await until(client, "its first sync", () => client.isInitialSyncComplete());
    return client;
}
