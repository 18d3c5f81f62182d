//! Where a user's identifiers were bound, so that they can be unbound (spec: `/account/3pid/bind`).

use futures::FutureExt;
use millrace_store::{Read, Result as StoreResult, Scan, Tx, tables::THREEPID_BINDINGS};
use ruma::{UserId, thirdparty::Medium};

use super::{Address, add::count_change};
use crate::Env;

/// An identifier that other people find somebody by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The identifier.
    pub address: Address,
    /// The identity server that publishes it.
    pub server: String,
}

/// What a user has bound through this server.
///
/// # Errors
/// Where the store fails.
pub async fn bindings(env: &Env, user: &UserId) -> StoreResult<Vec<Binding>> {
    let rows = env.store.snapshot().scan(&THREEPID_BINDINGS, user, Scan::all()).await?;
    let binding = |((medium, text, server), ()): ((String, String, String), ())| {
        let address = Address::of(&Medium::from(medium), &text).ok()?;
        Some(Binding { address, server })
    };
    Ok(rows.into_iter().filter_map(binding).collect())
}

/// Notes that an identity server publishes an identifier.
///
/// # Errors
/// Where the store fails.
pub async fn note_binding(env: &Env, user: &UserId, binding: &Binding) -> StoreResult<()> {
    write(env, user, binding, |tx, key| tx.put(&THREEPID_BINDINGS, user, key, &())).await
}

/// Notes that it does not publish it any more.
///
/// # Errors
/// Where the store fails.
pub async fn note_unbinding(env: &Env, user: &UserId, binding: &Binding) -> StoreResult<()> {
    write(env, user, binding, |tx, key| tx.delete(&THREEPID_BINDINGS, user, key)).await
}

async fn write(
    env: &Env,
    user: &UserId,
    Binding { address, server }: &Binding,
    change: impl Fn(&Tx, (&str, &str, &str)) + Sync,
) -> StoreResult<()> {
    let change = &change;
    let body = |tx: Tx| {
        async move {
            count_change(&tx, user).await?;
            change(&tx, (address.medium().as_str(), address.text(), server));
            Ok(())
        }
        .boxed()
    };
    env.store.transact(body).await
}
