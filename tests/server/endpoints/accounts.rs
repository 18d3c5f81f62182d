//! Accounts: registering, logging in and out, devices, passwords, deactivation.

use serde_json::json;

use super::{
    cases,
    world::{auth, proven, text},
};

cases! {
    register(w) {
        let body = json!({"username": "carol", "password": "p", "auth": {"type": "m.login.dummy"}});
        let carol = w.nobody.post("register", body.clone()).await.ok();
        let me = w.session(&carol).get("account/whoami").await.ok();
        assert_eq!(me["user_id"], "@carol:test");
        w.nobody.post("register", body).await.refused(400, "M_USER_IN_USE");
    }
    checkUsernameAvailability(w) {
        let path = "register/available?username=carol";
        assert_eq!(w.nobody.get(path).await.ok(), json!({"available": true}));
        let path = "register/available?username=alice";
        w.nobody.get(path).await.refused(400, "M_USER_IN_USE");
    }
    registrationTokenValidity(w) {
        let path = "/_matrix/client/v1/register/m.login.registration_token/validity";
        let found = w.nobody.get(&format!("{path}?token=none")).await.ok();
        assert_eq!(found, json!({"valid": false}));
        w.nobody.get(path).await.refused(400, "M_MISSING_PARAM");
    }
    getLoginFlows(w) {
        let flows = w.nobody.get("login").await.ok();
        let flows = flows["flows"].as_array().expect("a list").clone();
        assert!(flows.iter().any(|flow| flow["type"] == "m.login.password"));
        w.nobody.get("login?access_token=x").await.ok();
        w.nobody.post("login", json!({"type": "m.login.none"})).await.refused(400, "M_UNKNOWN");
    }
    login(w) {
        let session = w.nobody.post("login", auth("alice", "password")).await.ok();
        let me = w.session(&session).get("account/whoami").await.ok();
        assert_eq!(me["device_id"], session["device_id"]);
        w.nobody.post("login", auth("alice", "wrong")).await.refused(403, "M_FORBIDDEN");
    }
    generateLoginToken(w) {
        let path = "/_matrix/client/v1/login/get_token";
        let body = proven("alice", "wrong");
        w.alice.post(path, body).await.refused(401, "M_FORBIDDEN");
        let token = w.alice.post(path, proven("alice", "password")).await.ok();
        let body = json!({"type": "m.login.token", "token": token["login_token"]});
        let session = w.nobody.post("login", body).await.ok();
        assert_eq!(session["user_id"], w.alice.id());
    }
    refresh(w) {
        let mut body = auth("alice", "password");
        body["refresh_token"] = true.into();
        let session = w.nobody.post("login", body).await.ok();
        let body = json!({"refresh_token": session["refresh_token"]});
        let mut next = w.nobody.post("refresh", body).await.ok();
        (next["user_id"], next["device_id"]) =
            (session["user_id"].clone(), session["device_id"].clone());
        w.session(&next).get("account/whoami").await.ok();
        let body = json!({"refresh_token": "none"});
        w.nobody.post("refresh", body).await.refused(401, "M_UNKNOWN_TOKEN");
    }
    logout(w) {
        w.alice.post("logout", json!({})).await.ok();
        w.alice.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
        w.alice.post("logout", json!({})).await.refused(401, "M_UNKNOWN_TOKEN");
    }
    logout_all(w) {
        let other = w.nobody.post("login", auth("alice", "password")).await.ok();
        w.alice.post("logout/all", json!({})).await.ok();
        w.session(&other).get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
        w.alice.post("logout/all", json!({})).await.refused(401, "M_UNKNOWN_TOKEN");
    }
    getTokenOwner(w) {
        let me = w.alice.get("account/whoami").await.ok();
        assert_eq!(me, json!({"user_id": w.alice.id(), "device_id": w.alice.device()}));
        w.nobody.get("account/whoami").await.refused(401, "M_MISSING_TOKEN");
    }
    changePassword(w) {
        let mut body = proven("alice", "wrong");
        body["new_password"] = "other".into();
        w.alice.post("account/password", body.clone()).await.refused(401, "M_FORBIDDEN");
        body["auth"] = auth("alice", "password");
        w.alice.post("account/password", body).await.ok();
        w.nobody.post("login", auth("alice", "other")).await.ok();
        w.nobody.post("login", auth("alice", "password")).await.refused(403, "M_FORBIDDEN");
    }
    deactivateAccount(w) {
        let path = "account/deactivate";
        w.alice.post(path, proven("alice", "wrong")).await.refused(401, "M_FORBIDDEN");
        w.alice.post(path, proven("alice", "password")).await.ok();
        let login = w.nobody.post("login", auth("alice", "password")).await;
        login.refused(403, "M_USER_DEACTIVATED");
    }
    getDevices(w) {
        let devices = w.alice.get("devices").await.ok();
        assert_eq!(devices["devices"][0]["device_id"], w.alice.device());
        w.nobody.get("devices").await.refused(401, "M_MISSING_TOKEN");
    }
    getDevice(w) {
        let found = w.alice.get(&format!("devices/{}", w.alice.device())).await.ok();
        assert_eq!(found["device_id"], w.alice.device());
        w.alice.get("devices/none").await.refused(404, "M_NOT_FOUND");
    }
    updateDevice(w) {
        let path = format!("devices/{}", w.alice.device());
        w.alice.put(&path, json!({"display_name": "Phone"})).await.ok();
        assert_eq!(w.alice.get(&path).await.ok()["display_name"], "Phone");
        w.alice.put("devices/none", json!({"display_name": "x"})).await.refused(404, "M_NOT_FOUND");
    }
    deleteDevice(w) {
        let other = w.nobody.post("login", auth("alice", "password")).await.ok();
        let path = format!("devices/{}", text(&other["device_id"]));
        w.alice.delete(&path, proven("alice", "wrong")).await.refused(401, "M_FORBIDDEN");
        w.alice.delete(&path, proven("alice", "password")).await.ok();
        w.alice.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    deleteDevices(w) {
        let other = w.nobody.post("login", auth("alice", "password")).await.ok();
        let path = format!("devices/{}", text(&other["device_id"]));
        let mut body = proven("alice", "wrong");
        body["devices"] = json!([other["device_id"]]);
        w.alice.post("delete_devices", body.clone()).await.refused(401, "M_FORBIDDEN");
        body["auth"] = auth("alice", "password");
        w.alice.post("delete_devices", body).await.ok();
        w.alice.get(&path).await.refused(404, "M_NOT_FOUND");
    }
}
