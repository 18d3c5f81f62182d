// Two users of matrix-js-sdk with two devices each talk in an encrypted room, by its Rust cryptography:
// encrypted.mjs BASE_URL[,BASE_URL] talk|return STATE_FILE
//
// With two servers each user lives on one of them.
//
// `talk` is everything up to the restart of the server: cross-signing, secret storage, key backup, messages of
// all kinds, and a new device that gets the keys of old messages from the backup. `return` is a further new
// device after the restart.

import { createHash, randomBytes, webcrypto } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import * as sdk from "matrix-js-sdk";
import { expect, follow, logIn, register, step, until, PASSWORD } from "./common.mjs";

const PAGE = 30;
const PAUSE_MS = 100;
const PAUSES_MAX = 600;

for (const level of ["debug", "info", "warn", "error"]) console[level] = () => {}; // the cryptography tells all it does

/** For what no event of the SDK tells: looks until it is so. */
async function eventually(what, so) {
    for (let pauses = 0; !(await so()); pauses++) {
        expect(pauses < PAUSES_MAX, `waited in vain: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
}

/** A device with encryption, which syncs. `keys` are the secret storage keys that its user knows. */
async function device(base, name, label, keys) {
    const cryptoCallbacks = {
        getSecretStorageKey: async ({ keys: wanted }) => {
            const id = Object.keys(wanted).find((key) => keys[key]);
            return id ? [id, new Uint8Array(keys[id])] : null;
        },
        cacheSecretStorageKey: (id, _info, key) => {
            keys[id] = [...key];
        },
    };
    const client = await logIn(base, name, label, { cryptoCallbacks });
    await client.initRustCrypto({ useIndexedDB: false });
    return await follow(client, PAGE);
}

/** Answers the dialogue of user-interactive authentication with the password. */
const withPassword = (client) => async (request) => {
    const auth = { type: "m.login.password", identifier: { type: "m.id.user", user: client.getUserId() }, password: PASSWORD };
    try {
        await request(null);
    } catch (error) {
        if (error.httpStatus !== 401) throw error;
        await request({ ...auth, session: error.data.session });
    }
};

/** What a user does on the first device: cross-signing, secret storage, key backup. */
async function setUp(client) {
    const crypto = client.getCrypto();
    await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys: withPassword(client) });
    await crypto.bootstrapSecretStorage({
        createSecretStorageKey: () => crypto.createRecoveryKeyFromPassphrase(),
        setupNewSecretStorage: true,
        setupNewKeyBackup: true,
    });
    expect(await crypto.isCrossSigningReady(), "cross-signing is not ready");
    expect(await crypto.isSecretStorageReady(), "secret storage is not ready");
    await eventually("keys are backed up", async () => (await crypto.getActiveSessionBackupVersion()) !== null);
}

/** What a user does on a further device, with the key of the secret storage at hand. */
async function verifyByRecoveryKey(client) {
    const crypto = client.getCrypto();
    // Private keys are taken over only once the public ones are known, which a query right after the first sync tells.
    await eventually("the user's own cross-signing keys", () => crypto.userHasCrossSigningKeys());
    await crypto.bootstrapCrossSigning({});
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const check = await crypto.checkKeyBackupAndEnable();
    expect(check?.trustInfo.matchesDecryptionKey, "the backup is of another key");
}

/** Resolves with the decrypted event once it is in the client's timeline. */
async function reads(client, room, id) {
    const find = () => client.getRoom(room)?.findEventById(id);
    const decrypted = () => {
        const event = find();
        return event && !event.isBeingDecrypted() && !event.isDecryptionFailure() && event.getType() !== "m.room.encrypted";
    };
    await until(client, `${id} in clear`, decrypted);
    return find();
}

/** Each of `readers` gets the event decrypted; `check` looks at it. */
async function everybodyReads(readers, room, id, check) {
    for (const reader of readers) {
        const event = await reads(reader, room, id);
        expect(event.isEncrypted(), "it was not encrypted");
        check(event, reader);
    }
}

/** Encrypts a file as the specification says ("Sending encrypted attachments"). */
async function sealed(clear) {
    const iv = new Uint8Array(16);
    iv.set(randomBytes(8));
    const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const data = Buffer.from(await webcrypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, clear));
    const jwk = await webcrypto.subtle.exportKey("jwk", key);
    const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
    const hashes = { sha256: unpadded(createHash("sha256").update(data).digest()) };
    return { data, file: { v: "v2", key: { ...jwk, alg: "A256CTR", ext: true }, iv: unpadded(iv), hashes } };
}

/** Downloads and decrypts what `sealed` made. */
async function opened(client, file) {
    const url = client.mxcUrlToHttp(file.url, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    expect(answer.ok, `download: ${answer.status}`);
    const data = Buffer.from(await answer.arrayBuffer());
    const digest = createHash("sha256").update(data).digest("base64").replace(/=+$/, "");
    expect(digest === file.hashes.sha256, "the file was changed on its way");
    const key = await webcrypto.subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    return Buffer.from(await webcrypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, data));
}

/** The messages of a room that a device can read, when it has paged back to its beginning. */
async function readable(client, room) {
    while (client.getRoom(room).getLiveTimeline().getPaginationToken(sdk.Direction.Backward) !== null) {
        await client.scrollback(client.getRoom(room), PAGE);
    }
    const events = client.getRoom(room).getLiveTimeline().getEvents();
    await Promise.all(events.map((event) => client.decryptEventIfNeeded(event)));
    return events.filter((e) => e.isEncrypted()).map((e) => (e.isDecryptionFailure() ? "?" : e.getContent().body));
}

/** A new device reads nothing of the past until it has restored the backup. */
async function restores(client, room, said) {
    const crypto = client.getCrypto();
    expect((await readable(client, room)).includes("?"), "a new device reads old messages without their keys");
    await verifyByRecoveryKey(client);
    const { imported } = await crypto.restoreKeyBackup();
    expect(imported > 0, "the backup is empty");
    await until(client, "the old messages in clear", () =>
        client.getRoom(room).getLiveTimeline().getEvents().every((e) => !e.isDecryptionFailure() && !e.isBeingDecrypted()));
    const got = await readable(client, room);
    for (const text of said) expect(got.includes(text), `"${text}" is not among ${JSON.stringify(got)}`);
}

async function talk([ofErin, ofFinn], state) {
    const tag = randomBytes(4).toString("hex");
    const names = [`erin-${tag}`, `finn-${tag}`];
    const keys = [{}, {}]; // of the secret storage of each
    const said = [];
    let erin, finn, all, room;
    const send = async (client, content, type = "m.room.message") => {
        if (content.body) said.push(content.body);
        return (await client.sendEvent(room, type, content)).event_id;
    };
    const text = (body) => ({ msgtype: "m.text", body: `${body} (${tag})` });

    await step("encrypted: two users set up cross-signing, secret storage and key backup", async () => {
        await register(ofErin, names[0]);
        await register(ofFinn, names[1]);
        erin = [await device(ofErin, names[0], "laptop", keys[0])];
        finn = [await device(ofFinn, names[1], "laptop", keys[1])];
        await setUp(erin[0]);
        await setUp(finn[0]);
    });
    await step("encrypted: a second device of each is verified by the recovery key", async () => {
        erin.push(await device(ofErin, names[0], "phone", keys[0]));
        finn.push(await device(ofFinn, names[1], "phone", keys[1]));
        await verifyByRecoveryKey(erin[1]);
        await verifyByRecoveryKey(finn[1]);
        all = [...erin, ...finn];
    });
    await step("encrypted: they meet in an encrypted room", async () => {
        const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
        const options = { preset: sdk.Preset.PrivateChat, initial_state: [encryption], invite: [finn[0].getUserId()] };
        room = (await erin[0].createRoom(options)).room_id;
        await until(finn[0], "the invitation", () => finn[0].getRoom(room)?.getMyMembership() === "invite");
        await finn[0].joinRoom(room);
        for (const client of all) {
            await until(client, "both in the room", () => client.getRoom(room)?.getMember(finn[0].getUserId())?.membership === "join");
        }
    });
    await step("encrypted: each sees the other's devices as signed by their owner", async () => {
        for (const [seer, owners] of [[erin[0], finn], [finn[0], erin]]) {
            for (const owner of owners) {
                const [crypto, user, id] = [seer.getCrypto(), owner.getUserId(), owner.getDeviceId()];
                const signed = async () => (await crypto.getDeviceVerificationStatus(user, id))?.signedByOwner;
                // Of two devices that ask at once Synapse answers one without the owner's cross-signing keys,
                // where it is just being told them. That one asks again, as it does when a list changes.
                if (!(await signed())) await crypto.markAllTrackedUsersAsDirty();
                await eventually(`${id} of ${user} is signed by its owner`, signed);
            }
        }
    });
    let first;
    await step("encrypted: messages from each device are read by all others", async () => {
        for (const [sender, body] of [[erin[0], "hello"], [finn[1], "hello yourself"], [erin[1], "from my phone"]]) {
            const id = await send(sender, text(body));
            first ??= id;
            await everybodyReads(all, room, id, (event) => expect(event.getContent().body === said.at(-1), event.getContent().body));
        }
    });
    await step("encrypted: an edit, a reaction and a thread", async () => {
        const edit = { ...text("* hello, all"), "m.new_content": text("hello, all"), "m.relates_to": { rel_type: "m.replace", event_id: first } };
        await everybodyReads(all, room, await send(erin[0], edit), () => {});
        for (const client of all) {
            await until(client, "the edit", () => client.getRoom(room).findEventById(first).getContent().body === text("hello, all").body);
        }
        said[0] = text("hello, all").body; // the SDK shows the edited text
        const like = { "m.relates_to": { rel_type: "m.annotation", event_id: first, key: "\u{1F44D}" } };
        const reaction = await send(finn[0], like, "m.reaction");
        await until(erin[1], "the reaction", () => erin[1].getRoom(room).relations
            .getChildEventsForEvent(first, "m.annotation", "m.reaction")?.getRelations().some((e) => e.getId() === reaction));
        const reply = { ...text("in the thread"), "m.relates_to": { rel_type: "m.thread", event_id: first } };
        await everybodyReads(all, room, await send(finn[0], reply), (event) => expect(event.threadRootId === first, "not in the thread"));
    });
    await step("encrypted: an attachment", async () => {
        const clear = randomBytes(100_000);
        const { data, file } = await sealed(clear);
        file.url = (await erin[0].uploadContent(data, { type: "application/octet-stream" })).content_uri;
        const id = await send(erin[0], { ...text("picture"), msgtype: "m.file", file });
        for (const client of all) {
            const event = await reads(client, room, id);
            expect(clear.equals(await opened(client, event.getContent().file)), "another file came back");
        }
    });
    await step("encrypted: a new device restores the backup and reads what was said before it", async () => {
        for (const client of all) { // each has uploaded the keys that it has
            await eventually("all keys are in the backup", async () => !(await pending(client)));
        }
        await restores(await device(ofFinn, names[1], "tablet", keys[1]), room, said);
    });
    for (const client of all) client.stopClient();
    writeFileSync(state, JSON.stringify({ names, keys, room, said }));
}

/** Whether the server's backup lacks keys that this device has. */
async function pending(client) {
    const version = await client.getCrypto().getActiveSessionBackupVersion();
    expect(version !== null, "no backup");
    const known = JSON.parse(await client.getCrypto().exportRoomKeysAsJson()).length;
    const { count } = await client.http.authedRequest("GET", "/room_keys/version", undefined, undefined, { prefix: "/_matrix/client/v3" });
    return count < known;
}

async function comeBack([ofErin], state) {
    const { names, keys, room, said } = JSON.parse(readFileSync(state, "utf8"));
    await step("encrypted, after the restart: a new device restores the backup and reads all", async () => {
        const client = await device(ofErin, names[0], "new laptop", keys[0]);
        await restores(client, room, said);
        const id = (await client.sendTextMessage(room, "still there?")).event_id;
        await reads(client, room, id);
    });
}

const [bases, phase, state] = process.argv.slice(2);
const [first, second = first] = bases.split(",");
await { talk, return: comeBack }[phase]([first, second], state);
process.exit(0); // the SDK keeps timers
