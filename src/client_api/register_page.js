const query = new URLSearchParams(window.location.search);
const form = document.getElementById("register");
const failure = document.getElementById("failure");
const base = "/_matrix/client/v3";

async function register(body) {
    const answer = await fetch(base + "/register", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
    });
    return { status: answer.status, response: await answer.json() };
}

// Somebody takes the stage on its own page, which tells when it is done.
function takeStage(stage, session) {
    const path = `${base}/auth/${encodeURIComponent(stage)}/fallback/web`;
    const link = document.createElement("button");
    link.textContent = "Go on";
    failure.textContent = "";
    form.after(link);
    return new Promise((resolve) => {
        window.addEventListener("message", function listen(event) {
            if (event.data !== "authDone" || event.origin !== window.location.origin) return;
            window.removeEventListener("message", listen);
            link.remove();
            resolve();
        });
        link.addEventListener("click", () => {
            window.open(`${path}?session=${encodeURIComponent(session)}`);
        });
    });
}

form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = new FormData(form);
    const body = { username: fields.get("user"), password: fields.get("password") };
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (query.has(name)) body[name] = query.get(name);
    }
    try {
        let { status, response } = await register(body);
        if (status === 401 && response.flows) form.hidden = true;
        while (status === 401 && response.flows) {
            const done = response.completed || [];
            // The way with the fewest stages.
            const flows = response.flows.sort((a, b) => a.stages.length - b.stages.length);
            const stage = flows[0].stages.find((stage) => !done.includes(stage));
            if (stage === "m.login.dummy") {
                body.auth = { type: stage, session: response.session };
            } else {
                await takeStage(stage, response.session);
                body.auth = { session: response.session };
            }
            ({ status, response } = await register(body));
        }
        if (status !== 200) throw new Error(response.error);
        form.remove();
        failure.textContent = "Your account is there, and you are logged in.";
        const client = window.matrixRegistration;
        if (client && client.onRegistered) {
            const server = response.user_id.replace(/^[^:]*:/, "");
            client.onRegistered(server, response.user_id, response.access_token);
        } else if (window.onRegistered) {
            window.onRegistered(response);
        }
    } catch (error) {
        form.hidden = false;
        failure.textContent = error.message;
    }
});
