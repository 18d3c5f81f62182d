//! Servers that could not be told something: until when they are left alone. Whoever is noted here may
//! have missed anything, so that all rooms shared with it are looked at before it is forgotten.
//!
//! Who cannot be reached is [`crate::Destinations`]' to say, for requests of all kinds; what is counted
//! here besides are servers that answer, and refuse what they are told.

use futures::FutureExt;
use millrace_domain::Env;
use millrace_store::{Node, Read, Scan, Tx, rows::outbox::Failing, tables::FAILING};
use ruma::{OwnedServerName, ServerName};

/// The first wait after a refusal.
const FIRST_MS: u64 = 10_000;
/// The longest: an hour.
const LONGEST_MS: u64 = 3_600_000;

/// Notes that a server was not told something, and tells when it is tried again: at `due` where that
/// is known, else after a while that grows with each time.
pub(super) async fn failed(
    env: &Env,
    server: &ServerName,
    due: Option<u64>,
) -> millrace_store::Result<u64> {
    let now = u64::from(env.now().get());
    // Between half and the whole of the wait, so that those who failed together do not come back
    // together.
    let mut random = [0; 2];
    env.random.fill(&mut random);
    let share = 500 + u64::from(u16::from_be_bytes(random)) % 500;
    let write = |tx: Tx| {
        async move {
            let old = tx.get(&FAILING, Node, server).await?.unwrap_or_default();
            let wait = FIRST_MS.saturating_mul(2_u64.saturating_pow(old.failures)).min(LONGEST_MS);
            let due_ms = due.unwrap_or(now + wait * share / 1000);
            let failing = Failing { failures: old.failures.saturating_add(1), due_ms };
            tx.put(&FAILING, Node, server, &failing);
            Ok::<_, millrace_store::Error>(due_ms)
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Forgets, in the transaction that notes that it was told everything, that a server was not.
pub(super) fn told_all(tx: &Tx, server: &ServerName) {
    tx.delete(&FAILING, Node, server);
}

/// All servers that are left alone, and until when.
pub(super) async fn failing(env: &Env) -> millrace_store::Result<Vec<(OwnedServerName, u64)>> {
    let rows = env.store.snapshot().scan(&FAILING, Node, Scan::all()).await?;
    Ok(rows.into_iter().map(|(server, row)| (server, row.due_ms)).collect())
}
