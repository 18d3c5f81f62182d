//! What is seen below the API: what is stored, and what ends.

use super::*;
use crate::{
    accounts::{self, Accounts, Credentials, NewAccount, NewDevice, PasswordCost, register},
    testing::{TestClock, env_on},
};
use millrace_store::{
    Node, Read, Scan,
    engine::MemoryEngine,
    tables::{THREEPID_OWNERS, THREEPID_SESSION_ENDS, THREEPID_SESSIONS},
};

async fn world() -> (Accounts, std::sync::Arc<TestClock>) {
    let (env, clock) = env_on(MemoryEngine::new()).await;
    let password_cost = PasswordCost { memory_kib: 8, iterations: 1, parallelism: 1 };
    let threepids = Settings { email: true, ..Settings::default() };
    let settings = accounts::Settings {
        registration: true,
        password_cost,
        threepids,
        ..accounts::Settings::default()
    };
    (Accounts::new(env, settings, 1), clock)
}

fn new_session(secret: &str) -> NewSession<'_> {
    NewSession {
        purpose: Purpose::Register,
        address: Address::email("a@example.org").unwrap(),
        client_secret: secret,
        attempt: 1,
        next_link: None,
    }
}

async fn begun(accounts: &Accounts, secret: &str) -> (String, String) {
    match begin(accounts, &new_session(secret)).await.unwrap() {
        Begun::Send { sid, token } => (sid, token),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn neither_the_word_nor_the_secret_is_stored() {
    let (accounts, _) = world().await;
    let (sid, token) = begun(&accounts, "s3cret").await;
    let row = accounts.env.store.snapshot().get(&THREEPID_SESSIONS, &sid, ()).await.unwrap();
    let row = format!("{:?}", row.unwrap());
    assert!(!row.contains(&token) && !row.contains("s3cret"), "{row}");
}

#[tokio::test]
async fn sessions_that_ended_are_forgotten_when_others_begin() {
    let (accounts, clock) = world().await;
    let (sid, _) = begun(&accounts, "one").await;
    clock.advance(25 * 3600 * 1000);
    begun(&accounts, "two").await;
    let snapshot = accounts.env.store.snapshot();
    assert_eq!(snapshot.get(&THREEPID_SESSIONS, &sid, ()).await.unwrap(), None);
    let ends = snapshot.scan(&THREEPID_SESSION_ENDS, Node, Scan::all()).await.unwrap();
    assert_eq!(ends.len(), 1);
}

#[tokio::test]
async fn a_proof_is_for_the_client_that_asked_and_registers_one_account() {
    let (accounts, _) = world().await;
    let (sid, token) = begun(&accounts, "one").await;
    assert!(validate(&accounts, &sid, "another word").await.is_err());
    validate(&accounts, &sid, &token).await.unwrap();
    let snapshot = accounts.env.store.snapshot();
    let proof = async |secret: &str| {
        proved(&accounts, &snapshot, Purpose::Register, (&sid, secret)).await.unwrap()
    };
    assert_eq!(proof("two").await, None);
    let proof = proof("one").await.unwrap();
    let new = |name: &str| NewAccount {
        threepids: vec![proof.clone()],
        ..NewAccount::new(
            Some(name.to_owned()),
            Credentials::Password("secret".to_owned()),
            NewDevice::default(),
        )
    };
    register(&accounts, new("alice")).await.unwrap();
    let refused = register(&accounts, new("bob")).await.unwrap_err();
    assert!(matches!(refused, accounts::RegisterError::AddressTaken(_)), "{refused}");
}

#[tokio::test]
async fn who_gives_up_an_account_gives_up_its_addresses() {
    let (accounts, _) = world().await;
    let (sid, token) = begun(&accounts, "one").await;
    validate(&accounts, &sid, &token).await.unwrap();
    let snapshot = accounts.env.store.snapshot();
    let proof = proved(&accounts, &snapshot, Purpose::Register, (&sid, "one")).await.unwrap();
    let credentials = Credentials::Password("secret".to_owned());
    let new = NewAccount {
        threepids: proof.into_iter().collect(),
        ..NewAccount::new(Some("alice".to_owned()), credentials, NewDevice::default())
    };
    let login = register(&accounts, new).await.unwrap().login.unwrap();
    let requester = accounts::authenticate(&accounts, &login.access_token).await.unwrap();
    accounts::deactivate(&accounts, &requester, false).await.unwrap();
    let snapshot = accounts.env.store.snapshot();
    let row = snapshot.get(&THREEPID_OWNERS, "a@example.org", "email").await.unwrap();
    assert_eq!(row, None);
    assert_eq!(threepids(&accounts.env, &login.user).await.unwrap(), []);
}
