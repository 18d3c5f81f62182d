// What the page /sdk runs: a client of matrix-js-sdk, made one script by esbuild.

import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("silent");
const quiet = Object.fromEntries(["trace", "debug", "info", "warn", "error"].map((level) => [level, () => {}]));
quiet.getChild = () => quiet;
let client;

/** Waits for `found()`, looked at whenever there is news; the test limits the time. */
function until(found) {
    return new Promise((resolve) => {
        const news = [sdk.ClientEvent.Sync, sdk.RoomEvent.Timeline, sdk.RoomEvent.MyMembership, sdk.MatrixEventEvent.Decrypted];
        const look = async () => {
            if (!(await found())) return;
            news.forEach((name) => client.off(name, look));
            resolve();
        };
        news.forEach((name) => client.on(name, look));
        look();
    });
}

window.start = async ({ base, name, password }) => {
    const asking = sdk.createClient({ baseUrl: base, logger: quiet });
    const identifier = { type: "m.id.user", user: name };
    const login = await asking.loginRequest({ type: "m.login.password", identifier, password });
    const { user_id: userId, access_token: accessToken, device_id: deviceId } = login;
    client = sdk.createClient({ baseUrl: base, userId, accessToken, deviceId, logger: quiet });
    await client.initRustCrypto();
    await client.startClient({ pollTimeout: 20_000 });
    await until(() => client.isInitialSyncComplete());
};

window.invite = async (user) => (await client.createRoom({
    preset: "trusted_private_chat",
    invite: [user],
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
})).room_id;

window.joinAndSay = async (room, text) => {
    await until(() => client.getRoom(room)?.getMyMembership() === "invite");
    await client.joinRoom(room);
    // The invitation says already that the room is encrypted, but it counts once it comes by sync.
    await until(() => client.getCrypto().isEncryptionEnabledInRoom(room));
    await client.sendTextMessage(room, text);
};

window.say = (room, text) => client.sendTextMessage(room, text).then(() => {});

window.hears = (room, text) => until(() => client.getRoom(room)?.getLiveTimeline().getEvents()
    .some((event) => event.isEncrypted() && event.getContent().body === text));

document.body.append("ready");
