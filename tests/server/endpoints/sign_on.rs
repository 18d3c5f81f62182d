//! Single sign-on; what happens at the provider and after it is in `tests/server/sso.rs`.

use millrace_test_support::Answer;

use super::{cases, world::World};

const REDIRECT: &str = "login/sso/redirect";
const CLIENT: &str = "redirectUrl=https%3A%2F%2Fapp.test";

/// The browser was sent to the provider, and is known again when it comes back: the server asks the
/// provider for the word that it brings. One that was never sent is not.
async fn comes_back(w: &World, sent: &Answer) {
    assert_eq!(sent.status, 302, "{}", sent.text);
    let header = |name: &str| sent.headers[name].to_str().expect("a text").to_owned();
    let (location, cookie) = (header("location"), header("set-cookie"));
    let (place, query) = location.split_once('?').expect("a query");
    assert!(place.ends_with("/authorize"), "{location}");
    let state = query.split('&').find(|pair| pair.starts_with("state=")).expect("a state");
    let cookie = cookie.split(';').next().expect("a cookie");
    let callback = "/_matrix/millrace/sso/callback";
    let unknown = format!("{callback}?state=other&code=1");
    assert_eq!(w.nobody.get_with_cookie(&unknown, cookie).await.status, 400);
    let known = format!("{callback}?{state}&code=1");
    assert_eq!(w.nobody.get_with_cookie(&known, cookie).await.status, 502, "it gives no tokens");
}

cases! {
    redirectToSSO(w) {
        let sent = w.nobody.get(&format!("{REDIRECT}?{CLIENT}")).await;
        comes_back(w, &sent).await;
        let script = format!("{REDIRECT}?redirectUrl=javascript%3Aalert(1)");
        w.nobody.get(&script).await.says(400, "not the address of a client");
    }
    redirectToIdP(w) {
        let sent = w.nobody.get(&format!("{REDIRECT}/corp?{CLIENT}")).await;
        comes_back(w, &sent).await;
        let other = format!("{REDIRECT}/other?{CLIENT}");
        w.nobody.get(&other).await.says(404, "There is no identity provider");
    }
}
