const query = new URLSearchParams(window.location.search);
const form = document.getElementById("login");
const failure = document.getElementById("failure");
// What is no credential is passed on.
const passedOn = ["device_id", "initial_device_display_name", "refresh_token"].filter((name) => query.has(name));

async function logIn(credentials) {
    const body = { ...credentials };
    for (const name of passedOn) body[name] = query.get(name);
    if ("refresh_token" in body) body.refresh_token = body.refresh_token === "true";
    failure.textContent = "";
    try {
        const answer = await fetch("/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const response = await answer.json();
        if (!answer.ok) throw new Error(response.error);
        document.getElementById("ways").remove();
        failure.textContent = "You are logged in.";
        if (window.matrixLogin && window.matrixLogin.onLogin) window.matrixLogin.onLogin(response);
        else if (window.onLogin) window.onLogin(response);
    } catch (error) {
        failure.textContent = error.message;
    }
}

form.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = new FormData(form);
    logIn({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: fields.get("user") },
        password: fields.get("password"),
    });
});

// Identity providers send the browser back here, with a login token.
const here = new URL(window.location.pathname, window.location.origin);
for (const name of passedOn) here.searchParams.set(name, query.get(name));
// Whether somebody went from here to a provider in this window. Views without such a memory ask.
const began = {
    note() {
        try { window.sessionStorage.setItem("signOn", "began"); } catch { /* it is asked for */ }
    },
    take() {
        try {
            const found = window.sessionStorage.getItem("signOn") !== null;
            window.sessionStorage.removeItem("signOn");
            return found;
        } catch {
            return false;
        }
    },
};
for (const link of document.querySelectorAll("a.button")) {
    link.search = new URLSearchParams({ redirectUrl: here.href });
    link.addEventListener("click", began.note);
}

const token = query.get("loginToken");
if (token !== null) {
    // It is used up by one login, and is nothing to keep.
    window.history.replaceState(null, "", here.href);
    const goOn = () => logIn({ type: "m.login.token", token });
    if (began.take()) {
        goOn();
    } else {
        // A link of somebody else's could lead here, and replace a device that it names.
        const button = document.createElement("button");
        button.textContent = "Go on and log in";
        button.addEventListener("click", () => { button.remove(); goOn(); });
        failure.after(button);
    }
}
