// Two users of matrix-js-sdk talk with each other: client.mjs BASE_URL talk|return STATE_FILE
//
// `talk` is everything up to the restart of the server, `return` what comes after it. Each step
// prints a line; the exit status is 1 when one did not hold.

import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import * as sdk from "matrix-js-sdk";
import { expect, follow, logIn as logInOnly, quiet, register, step, until } from "./common.mjs";

const MESSAGES = 12; // from each of the two
const PAGE = 5;

/** A client that is logged in, and syncs. */
async function logIn(base, name, device) {
    return await follow(await logInOnly(base, name, device), PAGE);
}

const isText = (event) => event.getType() === "m.room.message" && event.getContent().msgtype === "m.text";

function texts(client, room) {
    const events = client.getRoom(room)?.getLiveTimeline().getEvents() ?? [];
    return events.filter((e) => isText(e) && !e.status).map((e) => e.getContent().body);
}

async function deliver(sender, receiver, room, text) {
    const arrived = until(receiver, `"${text}"`, () => texts(receiver, room).includes(text));
    await Promise.all([sender.sendTextMessage(room, text), arrived]);
}

/** All message texts, oldest first, by paging back until the room's beginning. */
async function history(client, room) {
    let pages = 0;
    for (; client.getRoom(room).getLiveTimeline().getPaginationToken(sdk.Direction.Backward) !== null; pages++) {
        expect(pages < 100, "paging back does not end");
        await client.scrollback(client.getRoom(room), PAGE);
    }
    expect(pages > 1, "the history came in one page");
    return texts(client, room);
}

function expectSame(got, want) {
    expect(JSON.stringify(got) === JSON.stringify(want), `${JSON.stringify(got)} is not ${JSON.stringify(want)}`);
}

async function expectDead(base, token) {
    const client = sdk.createClient({ logger: quiet, baseUrl: base, accessToken: token });
    const answer = await client.whoami().then(() => "an answer", (error) => error.errcode);
    expect(answer === "M_UNKNOWN_TOKEN", `whoami with the old token: ${answer}`);
}

async function logOut(base, client) {
    const token = client.getAccessToken();
    await client.logout(true);
    await expectDead(base, token);
}

async function talk(base, state) {
    const tag = randomBytes(4).toString("hex");
    const names = [`clara-${tag}`, `dora-${tag}`];
    const said = [];
    let clara, dora, room;
    await step("js-sdk: two users register", async () => {
        for (const name of names) {
            const { user_id: user } = await register(base, name);
            expect(user.startsWith(`@${name}:`), user);
        }
    });
    await step("js-sdk: they log in and sync", async () => {
        clara = await logIn(base, names[0], "laptop");
        dora = await logIn(base, names[1], "phone");
    });
    await step("js-sdk: a room is created, with a name", async () => {
        room = (await clara.createRoom({ name: "Tea", preset: sdk.Preset.PrivateChat })).room_id;
        await until(clara, "the room", () => clara.getRoom(room)?.name === "Tea");
    });
    await step("js-sdk: an invitation reaches the other by long-poll", async () => {
        const invited = until(dora, "the invitation", () => dora.getRoom(room)?.getMyMembership() === "invite");
        await Promise.all([clara.invite(room, dora.getUserId()), invited]);
    });
    await step("js-sdk: joining shows at both", async () => {
        const joined = (client) => until(client, "the join", () =>
            client.getRoom(room)?.getMember(dora.getUserId())?.membership === "join");
        await Promise.all([dora.joinRoom(room), joined(clara), joined(dora)]);
        await until(dora, "the room's name", () => dora.getRoom(room).name === "Tea");
    });
    await step(`js-sdk: ${MESSAGES} messages each way arrive by long-poll`, async () => {
        for (let i = 0; i < MESSAGES; i++) {
            for (const [sender, receiver, who] of [[clara, dora, "clara"], [dora, clara, "dora"]]) {
                said.push(`${who} says ${i} (${tag}) \u{1F375}`);
                await deliver(sender, receiver, room, said.at(-1));
            }
        }
    });
    await step("js-sdk: paging back gives the whole history in order", async () => {
        const late = await logIn(base, names[1], "tablet"); // knows only the end of the timeline
        expectSame(await history(late, room), said);
        await logOut(base, late);
    });
    await step("js-sdk: they log out, and their tokens are dead", async () => {
        await logOut(base, clara);
        await logOut(base, dora);
    });
    writeFileSync(state, JSON.stringify({ names, room, said }));
}

async function comeBack(base, state) {
    const { names, room, said } = JSON.parse(readFileSync(state, "utf8"));
    let clara, dora;
    await step("js-sdk, after the restart: both log in again", async () => {
        clara = await logIn(base, names[0], "laptop");
        dora = await logIn(base, names[1], "phone");
    });
    await step("js-sdk, after the restart: the room is there with its name, members and last messages", async () => {
        for (const client of [clara, dora]) {
            expect(client.getRoom(room)?.name === "Tea", `the room is called ${client.getRoom(room)?.name}`);
            await client.getRoom(room).loadMembersIfNeeded();
            const members = client.getRoom(room).getJoinedMembers().map((m) => m.userId).sort();
            expectSame(members, [clara.getUserId(), dora.getUserId()].sort());
            expectSame(texts(client, room), said.slice(-PAGE));
        }
    });
    await step("js-sdk, after the restart: the whole history is there", async () => {
        expectSame(await history(clara, room), said);
    });
    await step("js-sdk, after the restart: they talk on, and log out", async () => {
        await deliver(clara, dora, room, "still there?");
        await deliver(dora, clara, room, "of course");
        await logOut(base, clara);
        await logOut(base, dora);
    });
}

const [base, phase, state] = process.argv.slice(2);
await { talk, return: comeBack }[phase](base, state);
process.exit(0); // the SDK keeps timers
