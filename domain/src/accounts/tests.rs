//! What is seen below the API: races, counts, what is written and what is not.

use std::{net::Ipv4Addr, sync::Arc};

use futures::future::FutureExt;
use millrace_store::{
    Read, Scan,
    engine::MemoryEngine,
    rows::{
        account::RegistrationToken,
        user::{Pusher, PushkeyUsers, ToDevice, ToDeviceHead},
    },
    tables::{
        ACCESS_TOKENS, ACCOUNTS, DEVICE_LIST, DEVICE_LISTS, DEVICES_SEEN, MEMBERS, PROFILES,
        PUSHERS, PUSHERS_HEAD, PUSHKEY_USERS, REFRESH_TOKENS, REGISTRATION_TOKENS, TO_DEVICE,
        TO_DEVICE_HEAD,
    },
};
use ruma::{
    api::client::uiaa::{AuthData, AuthType, Dummy, RegistrationToken as RegistrationTokenData},
    device_id,
    events::room::member::MembershipState,
    user_id,
};

use super::*;
use crate::{
    rooms::test_room::TestRoom,
    testing::{TestClock, env_on},
};

struct World {
    accounts: Accounts,
    clock: Arc<TestClock>,
}

async fn world() -> World {
    let (env, clock) = env_on(MemoryEngine::new()).await;
    World { accounts: accounts_in(env), clock }
}

fn accounts_in(env: Env) -> Accounts {
    let cost = PasswordCost { memory_kib: 8, iterations: 1, parallelism: 1 };
    let settings = Settings { registration: true, password_cost: cost, ..Settings::default() };
    Accounts::new(env, settings, 2)
}

fn person(name: &str) -> NewAccount {
    let credentials = Credentials::Password("secret".to_owned());
    let device = NewDevice { refreshes: true, ..NewDevice::default() };
    NewAccount::new(Some(name.to_owned()), credentials, device)
}

fn alice_id() -> Option<ruma::OwnedUserId> {
    Some(user_id!("@alice:test.example").to_owned())
}

fn bob_id() -> Option<ruma::OwnedUserId> {
    Some(user_id!("@bob:test.example").to_owned())
}

impl World {
    async fn register(&self, name: &str) -> Login {
        register(&self.accounts, person(name)).await.unwrap().login.unwrap()
    }

    async fn requester(&self, login: &Login) -> Requester {
        authenticate(&self.accounts, &login.access_token).await.unwrap()
    }

    async fn devices_of(&self, user: &ruma::UserId) -> Vec<DeviceInfo> {
        devices(&self.accounts, user).await.unwrap()
    }
}

#[tokio::test]
async fn of_two_who_want_one_name_at_once_one_gets_it() {
    let w = world().await;
    let (a, b) = tokio::join!(
        register(&w.accounts, person("alice")),
        register(&w.accounts, person("Alice")),
    );
    assert_eq!([&a, &b].iter().filter(|registered| registered.is_ok()).count(), 1);
    let refused = a.and(b).unwrap_err();
    assert!(matches!(refused, RegisterError::Taken(user) if user == "@alice:test.example"));
}

#[tokio::test]
async fn a_new_account_is_shown_by_its_localpart() {
    let w = world().await;
    let alice = w.register("alice").await;
    let snapshot = w.accounts.env.store.snapshot();
    let name = snapshot.get(&PROFILES, &alice.user, "displayname").await.unwrap();
    assert_eq!(name.as_deref(), Some("\"alice\""));
}

#[tokio::test]
async fn a_registration_token_is_good_for_as_many_accounts_as_it_says() {
    let w = world().await;
    let token = RegistrationToken { uses_allowed: Some(1), ..RegistrationToken::default() };
    let put = |tx: millrace_store::Tx| {
        tx.put(&REGISTRATION_TOKENS, "word", (), &token);
        futures::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
    };
    w.accounts.env.store.transact(put).await.unwrap();
    assert!(is_registration_token_valid(&w.accounts, "word").await.unwrap());
    let with_token =
        |name| NewAccount { registration_token: Some("word".to_owned()), ..person(name) };
    register(&w.accounts, with_token("first")).await.unwrap();
    // Both had shown the token while it was good; the transaction counts again.
    let second = register(&w.accounts, with_token("second")).await.unwrap_err();
    assert!(matches!(second, RegisterError::RegistrationToken));
    assert!(!is_registration_token_valid(&w.accounts, "word").await.unwrap());
}

#[tokio::test]
async fn tokens_are_stored_by_their_hashes_only() {
    let w = world().await;
    let alice = w.register("alice").await;
    let snapshot = w.accounts.env.store.snapshot();
    let hash = hash_token(&alice.access_token);
    let row = snapshot.get(&ACCESS_TOKENS, hash, ()).await.unwrap().unwrap();
    assert!(!format!("{row:?}").contains(&alice.access_token));
    let refresh = hash_token(alice.refresh_token.as_ref().unwrap());
    assert!(snapshot.get(&REFRESH_TOKENS, refresh, ()).await.unwrap().is_some());
    let account = snapshot.get(&ACCOUNTS, &alice.user, ()).await.unwrap().unwrap();
    assert!(account.password_hash.unwrap().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
}

#[tokio::test]
async fn logging_out_leaves_no_token_behind() {
    let w = world().await;
    let first = w.register("alice").await;
    let second = refresh(&w.accounts, first.refresh_token.as_ref().unwrap()).await.unwrap();
    let requester = w.requester(&second).await;
    log_out(&w.accounts, &requester).await.unwrap();
    let snapshot = w.accounts.env.store.snapshot();
    for login in [&first, &second] {
        let access = hash_token(&login.access_token);
        assert_eq!(snapshot.get(&ACCESS_TOKENS, access, ()).await.unwrap(), None);
        let refresh = hash_token(login.refresh_token.as_ref().unwrap());
        assert_eq!(snapshot.get(&REFRESH_TOKENS, refresh, ()).await.unwrap(), None);
    }
    assert_eq!(w.devices_of(&first.user).await, []);
}

#[tokio::test]
async fn an_access_token_that_was_refreshed_away_counts_as_expired() {
    let w = world().await;
    let first = w.register("alice").await;
    let second = refresh(&w.accounts, first.refresh_token.as_ref().unwrap()).await.unwrap();
    // Requests under way go on until the new token is used.
    w.requester(&first).await;
    w.requester(&second).await;
    let old = authenticate(&w.accounts, &first.access_token).await.unwrap_err();
    assert!(matches!(old, AuthenticateError::Expired));
    let third = refresh(&w.accounts, second.refresh_token.as_ref().unwrap()).await.unwrap();
    w.requester(&third).await;
    let gone = authenticate(&w.accounts, &first.access_token).await.unwrap_err();
    assert!(matches!(gone, AuthenticateError::Unknown), "an ended token is not kept for ever");
}

#[tokio::test]
async fn a_refresh_token_can_expire_and_its_session_stays() {
    let mut w = world().await;
    w.accounts.settings.lifetimes.refresh_token = Some(Duration::from_secs(10));
    let alice = w.register("alice").await;
    w.clock.advance(10_000);
    let refused = refresh(&w.accounts, alice.refresh_token.as_ref().unwrap()).await.unwrap_err();
    assert!(matches!(refused, RefreshError::Expired));
    assert_eq!(w.devices_of(&alice.user).await.len(), 1);
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_changes_nothing() {
    let w = world().await;
    let alice = w.register("alice").await;
    let requester = w.requester(&alice).await;
    log_out_everywhere(&w.accounts, &alice.user).await.unwrap();
    let new = NewPassword { password: "other".to_owned(), log_out_others: false };
    let refused = change_password(&w.accounts, &requester, &new).await.unwrap_err();
    assert!(matches!(refused, ChangePasswordError::Session(AuthenticateError::Unknown)));
    let device = NewDevice::default();
    log_in_by_password(&w.accounts, alice_id(), "secret", &device).await.unwrap();
}

#[tokio::test]
async fn every_change_of_devices_is_news_of_the_device_lists_and_nothing_else_is() {
    let w = world().await;
    let store = &w.accounts.env.store;
    let alice = w.register("alice").await;
    let moved = async |before: &millrace_store::View| {
        let snapshot = store.snapshot();
        let changes = snapshot.changes::<String>(DEVICE_LISTS, before, 10).await.unwrap();
        let users = changes.iter().map(|change| DEVICE_LIST.decode_key(&change.key).unwrap());
        (users.collect::<Vec<_>>(), snapshot.view().clone())
    };
    let (users, view) = moved(&millrace_store::View::default()).await;
    assert_eq!(users, std::slice::from_ref(&alice.user));
    let again = NewDevice { id: Some(alice.device.clone()), ..NewDevice::default() };
    log_in_by_password(&w.accounts, alice_id(), "secret", &again).await.unwrap();
    let (users, view) = moved(&view).await;
    assert_eq!(users.len(), 0, "a device that is known is no news");
    let other = log_in_by_password(&w.accounts, alice_id(), "secret", &NewDevice::default()).await;
    let requester = w.requester(&other.unwrap()).await;
    let (users, view) = moved(&view).await;
    assert_eq!(users.len(), 1, "a new device is");
    rename_device(&w.accounts, &requester, &requester.device, Some("name")).await.unwrap();
    let (users, view) = moved(&view).await;
    assert_eq!(users.len(), 1, "a new name is");
    rename_device(&w.accounts, &requester, &requester.device, Some("name")).await.unwrap();
    let (users, view) = moved(&view).await;
    assert_eq!(users.len(), 0, "the same name is not");
    log_out_everywhere(&w.accounts, &alice.user).await.unwrap();
    assert_eq!(moved(&view).await.0.len(), 1, "the end of devices is");
}

#[tokio::test]
async fn where_devices_were_seen_is_shown_at_once_and_written_once_in_a_while() {
    let w = world().await;
    let alice = w.register("alice").await;
    let requester = w.requester(&alice).await;
    let note = |ip: [u8; 4]| {
        let now = w.accounts.env.now();
        let origin = Origin { ip: Ipv4Addr::from(ip).into(), user_agent: Some("Test") };
        w.accounts.last_seen.note(&requester, origin, now)
    };
    assert!(note([192, 0, 2, 1]).is_none());
    assert_eq!(w.devices_of(&alice.user).await[0].seen.as_ref().unwrap().ip, "192.0.2.1");
    w.clock.advance(299_000);
    assert!(note([192, 0, 2, 2]).is_none());
    w.clock.advance(1_000);
    let batch = note([192, 0, 2, 3]).expect("five minutes are over");
    LastSeen::write(&w.accounts, &batch).await.unwrap();
    let snapshot = w.accounts.env.store.snapshot();
    let seen = snapshot.get(&DEVICES_SEEN, &alice.user, &alice.device).await.unwrap().unwrap();
    assert_eq!(seen.ip, "192.0.2.3");

    assert!(note([127, 0, 0, 1]).is_none());
    log_out(&w.accounts, &requester).await.unwrap();
    LastSeen::write(&w.accounts, &w.accounts.last_seen.rest()).await.unwrap();
    let snapshot = w.accounts.env.store.snapshot();
    let rows = snapshot.scan(&DEVICES_SEEN, &alice.user, Scan::all()).await.unwrap();
    assert_eq!(rows, [], "a device that is gone is not written again");
}

#[tokio::test]
async fn who_was_deactivated_is_departing_until_all_rooms_are_left() {
    let room = TestRoom::with_visibility("shared").await;
    let w = World { accounts: accounts_in(room.rooms.env.clone()), clock: Arc::default() };
    let bob = w.register("bob").await;
    room.member("bob", "bob", "join").await;
    let membership = async || {
        let snapshot = w.accounts.env.store.snapshot();
        snapshot.get(&MEMBERS, &room.id, &bob.user).await.unwrap().map(|row| row.membership)
    };
    deactivate(&w.accounts, &w.requester(&bob).await, true).await.unwrap();
    assert_eq!(departing(&w.accounts).await.unwrap(), std::slice::from_ref(&bob.user));
    assert_eq!(membership().await, Some(MembershipState::Join));
    depart(&w.accounts, &room.rooms, &bob.user).await.unwrap();
    assert_eq!(departing(&w.accounts).await.unwrap(), Vec::<ruma::OwnedUserId>::new());
    assert_eq!(membership().await, Some(MembershipState::Leave));

    let snapshot = w.accounts.env.store.snapshot();
    assert!(find_deactivation(&snapshot, &bob.user).await.unwrap().unwrap().erase);
    let name = snapshot.get(&PROFILES, &bob.user, "displayname").await.unwrap();
    assert_eq!(name, None);
}

#[tokio::test]
async fn sessions_that_exist_learn_who_became_an_administrator() {
    let w = world().await;
    let alice = w.register("alice").await;
    assert!(!w.requester(&alice).await.admin);
    assert!(set_admin(&w.accounts, &alice.user, true).await.unwrap());
    assert!(w.requester(&alice).await.admin);
    assert!(!set_admin(&w.accounts, user_id!("@nobody:test.example"), true).await.unwrap());
}

#[tokio::test]
async fn a_device_that_asks_for_two_login_tokens_has_one() {
    let w = world().await;
    let alice = w.register("alice").await;
    let requester = w.requester(&alice).await;
    let (first, _) = issue_login_token(&w.accounts, &requester).await.unwrap();
    let (second, _) = issue_login_token(&w.accounts, &requester).await.unwrap();
    let device = NewDevice { id: Some(device_id!("NEW").to_owned()), ..NewDevice::default() };
    let refused = log_in_by_token(&w.accounts, &first, &device).await.unwrap_err();
    assert!(matches!(refused, LogInError::LoginToken));
    assert_eq!(log_in_by_token(&w.accounts, &second, &device).await.unwrap().device, "NEW");
}

#[tokio::test]
async fn a_password_of_unbounded_length_is_refused_and_never_fits() {
    let w = world().await;
    let long = "x".repeat(513);
    let new = NewAccount { credentials: Credentials::Password(long.clone()), ..person("alice") };
    let refused = register(&w.accounts, new).await.unwrap_err();
    assert!(matches!(refused, RegisterError::Password(HashError::TooLong)));
    w.register("bob").await;
    let device = NewDevice::default();
    let refused = log_in_by_password(&w.accounts, bob_id(), &long, &device).await.unwrap_err();
    assert!(matches!(refused, LogInError::WrongPassword));
}

#[tokio::test]
async fn pushers_and_waiting_messages_end_with_their_device() {
    let w = world().await;
    let store = &w.accounts.env.store;
    let ended = w.register("alice").await;
    let (user, device) = (&ended.user, &ended.device);
    let write = |tx: millrace_store::Tx| {
        for (app, owner) in [("ended", &**device), ("kept", device_id!("KEPT"))] {
            let (json, device) = ("{}".to_owned(), owner.to_owned());
            tx.put(&PUSHERS, user, (app, "key"), &Pusher { json, device, set_ms: 1 });
            let users = vec![user_id!("@bob:test.example").to_owned(), user.clone()];
            tx.put(&PUSHKEY_USERS, "key", app, &PushkeyUsers { users });
            let message = ToDevice {
                sender: user.clone(),
                kind: "m.test".to_owned(),
                content: "{}".to_owned(),
                sent_ms: 1,
            };
            tx.put(&TO_DEVICE, user, (owner, 1_u64), &message);
            tx.put(&TO_DEVICE_HEAD, user, owner, &ToDeviceHead { first: 1, last: 1 });
        }
        tx.put(&PUSHERS_HEAD, user, (), &1);
        futures::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
    };
    store.transact(write).await.unwrap();
    log_out(&w.accounts, &w.requester(&ended).await).await.unwrap();

    let snapshot = store.snapshot();
    let pushers = snapshot.scan(&PUSHERS, user, Scan::all()).await.unwrap();
    assert_eq!(pushers.len(), 1);
    assert_eq!(pushers[0].0.0, "kept");
    let users = async |app: &str| {
        let row = snapshot.get(&PUSHKEY_USERS, "key", app).await.unwrap();
        row.unwrap().users.len()
    };
    assert_eq!((users("ended").await, users("kept").await), (1, 2));
    let waiting = snapshot.scan(&TO_DEVICE, user, Scan::all()).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].0.0, "KEPT");
    let head = snapshot.get(&TO_DEVICE_HEAD, user, &**device).await.unwrap();
    assert_eq!(head, Some(ToDeviceHead { first: 2, last: 1 }));
}

#[tokio::test]
async fn a_wrong_token_after_the_right_one_does_not_register_uncounted() {
    let mut w = world().await;
    w.accounts.settings.registration_token = Some("right".to_owned());
    let flows = vec![vec![AuthType::RegistrationToken, AuthType::Dummy]];
    let challenge = uiaa::Challenge { operation: "register".to_owned(), user: None, flows };
    let mut session = None;
    for token in ["right", "wrong"] {
        let mut data = RegistrationTokenData::new(token.to_owned());
        data.session.clone_from(&session);
        let auth = AuthData::RegistrationToken(data);
        let asked = uiaa::authorise(&w.accounts, &challenge, Some(&auth)).await.unwrap_err();
        let uiaa::UiaaError::Needed(info) = asked else { panic!("{asked}") };
        assert_eq!(info.completed, [AuthType::RegistrationToken]);
        session = info.session;
    }
    let mut last = Dummy::new();
    last.session = session;
    let auth = AuthData::Dummy(last);
    let proof = uiaa::authorise(&w.accounts, &challenge, Some(&auth)).await.unwrap();
    assert_eq!(proof.registration_token.as_deref(), Some("right"));
}

#[tokio::test]
async fn a_login_raises_the_cost_of_an_old_hash() {
    let mut w = world().await;
    let alice = w.register("alice").await;
    let cost = PasswordCost { memory_kib: 16, iterations: 1, parallelism: 1 };
    w.accounts.passwords = Passwords::new(cost, 1);
    for _ in 0..2 {
        let device = NewDevice::default();
        log_in_by_password(&w.accounts, alice_id(), "secret", &device).await.unwrap();
        let snapshot = w.accounts.env.store.snapshot();
        let account = snapshot.get(&ACCOUNTS, &alice.user, ()).await.unwrap().unwrap();
        assert!(account.password_hash.unwrap().contains("m=16,"));
    }
}
