const query = new URLSearchParams(window.location.search);
const form = document.getElementById("login");
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = new FormData(form);
    const body = {
        type: "m.login.password",
        identifier: { type: "m.id.user", user: fields.get("user") },
        password: fields.get("password"),
    };
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (query.has(name)) body[name] = query.get(name);
    }
    if (query.get("refresh_token") === "true") body.refresh_token = true;
    const failure = document.getElementById("failure");
    try {
        const answer = await fetch("/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const response = await answer.json();
        if (!answer.ok) throw new Error(response.error);
        form.remove();
        failure.textContent = "You are logged in.";
        if (window.matrixLogin && window.matrixLogin.onLogin) window.matrixLogin.onLogin(response);
        else if (window.onLogin) window.onLogin(response);
    } catch (error) {
        failure.textContent = error.message;
    }
});
