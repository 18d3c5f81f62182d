//! E-mail addresses and phone numbers: proved, added, bound, and used for new accounts and passwords.

use serde_json::{Value, json};

use super::{
    cases,
    world::{World, auth, text},
};

const MAIL: &str = "alice@example.org";

cases! {
    getAccount3PIDs(w) {
        added(w).await;
        assert_eq!(addresses(w).await, [MAIL]);
        w.nobody.get("account/3pid").await.refused(401, "M_MISSING_TOKEN");
    }
    requestTokenTo3PIDEmail(w) {
        added(w).await;
        assert_eq!(addresses(w).await, [MAIL]);
        let again = ask_by_mail(w, "account/3pid", MAIL).await;
        again.refused(400, "M_THREEPID_IN_USE");
    }
    add3PID(w) {
        let sid = proved(w, "account/3pid", "s").await;
        let mut body = json!({"sid": sid, "client_secret": "wrong"});
        body["auth"] = auth("alice", "password");
        w.alice.post("account/3pid/add", body.clone()).await.refused(400, "M_THREEPID_AUTH_FAILED");
        body["client_secret"] = "s".into();
        w.alice.post("account/3pid/add", body).await.ok();
        assert_eq!(addresses(w).await, [MAIL]);
    }
    delete3pidFromAccount(w) {
        added(w).await;
        let body = json!({"medium": "email", "address": MAIL});
        w.nobody.post("account/3pid/delete", body.clone()).await.refused(401, "M_MISSING_TOKEN");
        w.alice.post("account/3pid/delete", body).await.ok();
        assert!(addresses(w).await.is_empty());
    }
    bind3PID(w) {
        w.alice.post("account/3pid/bind", binding("id.example")).await.ok();
        assert_eq!(w.identity.asked("3pid/bind")[0].body["mxid"], w.alice.id());
        let elsewhere = w.alice.post("account/3pid/bind", binding("evil.example")).await;
        elsewhere.refused(400, "M_SERVER_NOT_TRUSTED");
    }
    post3PIDs(w) {
        let creds = |server: &str| json!({"three_pid_creds": binding(server)});
        w.alice.post("account/3pid", creds("id.example")).await.ok();
        assert_eq!(w.identity.asked("3pid/bind").len(), 1);
        let elsewhere = w.alice.post("account/3pid", creds("evil.example")).await;
        elsewhere.refused(400, "M_SERVER_NOT_TRUSTED");
    }
    unbind3pidFromAccount(w) {
        w.alice.post("account/3pid/bind", binding("id.example")).await.ok();
        let body = json!({"medium": "email", "address": MAIL});
        let unbound = w.alice.post("account/3pid/unbind", body.clone()).await.ok();
        assert_eq!(unbound["id_server_unbind_result"], "success");
        assert_eq!(w.identity.asked("3pid/unbind").len(), 1);
        w.nobody.post("account/3pid/unbind", body).await.refused(401, "M_MISSING_TOKEN");
    }
    requestTokenTo3PIDMSISDN(w) {
        w.nobody.post("account/3pid/msisdn/requestToken", phone("07700 900001")).await.ok();
        assert_eq!(w.identity.asked("msisdn/requestToken").len(), 1);
        let path = "account/3pid/msisdn/requestToken";
        w.nobody.post(path, json!({})).await.refused(400, "M_BAD_JSON");
    }
    requestTokenToRegisterMSISDN(w) {
        w.nobody.post("register/msisdn/requestToken", phone("07700 900001")).await.ok();
        assert_eq!(w.identity.asked("msisdn/requestToken").len(), 1);
        let path = "register/msisdn/requestToken";
        w.nobody.post(path, json!({})).await.refused(400, "M_BAD_JSON");
    }
    requestTokenToResetPasswordMSISDN(w) {
        let unknown = w.nobody.post("account/password/msisdn/requestToken", phone("07700 900001"));
        unknown.await.refused(400, "M_THREEPID_NOT_FOUND");
        let path = "account/3pid/msisdn/requestToken";
        let asked = w.nobody.post(path, phone("07700 900001")).await.ok();
        let submit = text(&asked["submit_url"]).replace("https://test", "");
        let body = json!({"sid": asked["sid"], "client_secret": "s", "token": "1"});
        w.nobody.post(&submit, body).await.ok();
        let mut body = json!({"sid": asked["sid"], "client_secret": "s"});
        body["auth"] = auth("alice", "password");
        w.alice.post("account/3pid/add", body).await.ok();
        w.nobody.post("account/password/msisdn/requestToken", phone("07700 900001")).await.ok();
        assert_eq!(w.identity.asked("msisdn/requestToken").len(), 2);
    }
    requestTokenToRegisterEmail(w) {
        let sid = proved(w, "register", "s").await;
        let proof = json!({"sid": sid, "client_secret": "s"});
        let auth = json!({"type": "m.login.email.identity", "threepid_creds": proof});
        let body = json!({"username": "carol", "password": "p", "auth": auth});
        let carol = w.session(&w.nobody.post("register", body).await.ok());
        assert_eq!(carol.get("account/3pid").await.ok()["threepids"][0]["address"], MAIL);
        ask_by_mail(w, "register", MAIL).await.refused(400, "M_THREEPID_IN_USE");
    }
    requestTokenToResetPasswordEmail(w) {
        ask_by_mail(w, "account/password", MAIL).await.refused(400, "M_THREEPID_NOT_FOUND");
        added(w).await;
        let before = w.mail.count();
        ask_by_mail(w, "account/password", MAIL).await.ok();
        assert_eq!((w.mail.count(), w.mail.newest().to.as_str()), (before + 1, MAIL));
    }
}

async fn ask_by_mail(w: &World, what: &str, address: &str) -> millrace_test_support::Answer {
    let body = json!({"client_secret": "s", "email": address, "send_attempt": 1});
    w.nobody.post(&format!("{what}/email/requestToken"), body).await
}

/// The session in which somebody has proved to hold the address.
async fn proved(w: &World, what: &str, secret: &str) -> Value {
    let body = json!({"client_secret": secret, "email": MAIL, "send_attempt": 1});
    let asked = w.nobody.post(&format!("{what}/email/requestToken"), body).await.ok();
    w.nobody.follow(&w.mail.newest().link()).await;
    asked["sid"].clone()
}

/// Gives alice the address.
async fn added(w: &World) {
    let sid = proved(w, "account/3pid", "s").await;
    let body = json!({"sid": sid, "client_secret": "s", "auth": auth("alice", "password")});
    w.alice.post("account/3pid/add", body).await.ok();
}

async fn addresses(w: &World) -> Vec<String> {
    let found = w.alice.get("account/3pid").await.ok();
    let found = found["threepids"].as_array().cloned().unwrap_or_default();
    found.iter().map(|one| text(&one["address"]).to_owned()).collect()
}

fn binding(server: &str) -> Value {
    json!({"sid": "1", "client_secret": "s", "id_server": server, "id_access_token": "token"})
}

fn phone(number: &str) -> Value {
    json!({"client_secret": "s", "country": "GB", "phone_number": number, "send_attempt": 1})
}
