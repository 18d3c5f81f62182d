//! What is deleted of a user who gives up their account and wants to be forgotten. What they said in
//! rooms stays there for those who were there, and is shown redacted to all others
//! (`rooms/render.rs`).

use futures::FutureExt;
use millrace_store::{
    Read, Result, Scan, Tx,
    rows::receipt::Reach,
    tables::{
        ACCOUNT_DATA, CONSENTS, DELIVERED, EVENT_TXNS, FILTER_COUNTS, FILTERS, MEMBERS, PROFILES,
        READ_UP_TO, RECEIPTS, SSO_LINKS, SSO_SUBJECTS, THREAD_SUBSCRIPTIONS, THREEPID_BINDINGS,
        TRANSACTIONS, UNREAD, USER_ROOMS, USER_SIGNATURES,
    },
};
use ruma::{RoomId, UserId};

use super::Accounts;
use crate::{key_backup, threepids};

/// So many rows are deleted in one transaction.
const BATCH: usize = 1_000;

/// Deletes what is the user's alone: profile, account data, filters, signatures on the keys of others,
/// how far their messages came, and by whom they were known elsewhere. All sessions end in the same transaction, so that no request
/// that comes later writes more of it.
pub(super) async fn erase_own(tx: &Tx, user: &UserId) -> Result<()> {
    let found = tx.unprotected();
    for (field, _) in found.scan(&PROFILES, user, Scan::all()).await? {
        tx.delete(&PROFILES, user, &field);
    }
    for ((room, kind), _) in found.scan(&ACCOUNT_DATA, user, Scan::all()).await? {
        tx.delete(&ACCOUNT_DATA, user, (&room, &kind));
    }
    for (id, _) in found.scan(&FILTERS, user, Scan::all()).await? {
        tx.delete(&FILTERS, user, &id);
    }
    tx.delete(&FILTER_COUNTS, user, ());
    for ((owner, key), _) in found.scan(&USER_SIGNATURES, user, Scan::all()).await? {
        tx.delete(&USER_SIGNATURES, user, (&owner, &key));
    }
    for ((provider, subject), ()) in found.scan(&SSO_SUBJECTS, user, Scan::all()).await? {
        tx.delete(&SSO_SUBJECTS, user, (&provider, &subject));
        tx.delete(&SSO_LINKS, &provider, &subject);
    }
    for ((room, recipient, reach), _) in found.scan(&DELIVERED, user.as_str(), Scan::all()).await? {
        tx.delete(&DELIVERED, user.as_str(), (&room, &recipient, reach));
    }
    tx.delete(&CONSENTS, user, ());
    for ((room, root), _) in found.scan(&THREAD_SUBSCRIPTIONS, user, Scan::all()).await? {
        tx.delete(&THREAD_SUBSCRIPTIONS, user, (&room, &root));
    }
    Ok(())
}

/// Deletes the traces that a user left in rooms beside what they said: how far they have read, and
/// what their devices sent under which names; backups of keys; and where addresses were published.
/// Repeating it is harmless.
pub(super) async fn erase_traces(accounts: &Accounts, user: &UserId) -> Result<()> {
    let rooms = accounts.env.store.snapshot().scan(&USER_ROOMS, user, Scan::all()).await?;
    for (room, _) in rooms {
        erase_in(accounts, user, &room).await?;
    }
    while erase_sent(accounts, user).await? {}
    key_backup::forget_user(&accounts.env, user).await?;
    erase_bindings(accounts, user).await
}

/// Deletes where addresses were published. Those that could not be taken back stay there.
async fn erase_bindings(accounts: &Accounts, user: &UserId) -> Result<()> {
    let write = |tx: Tx| {
        async move {
            let bindings = tx.unprotected().scan(&THREEPID_BINDINGS, user, Scan::all()).await?;
            for ((medium, address, server), ()) in &bindings {
                tx.delete(&THREEPID_BINDINGS, user, (medium, address, server));
            }
            if !bindings.is_empty() {
                threepids::count_change(&tx, user).await?;
            }
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

async fn erase_in(accounts: &Accounts, user: &UserId, room: &RoomId) -> Result<()> {
    let write = |tx: Tx| {
        async move {
            let receipts = tx.unprotected().scan(&RECEIPTS, room, Scan::prefix(user)).await?;
            for ((user, kind, thread), _) in receipts {
                tx.delete(&RECEIPTS, room, (&user, kind, &thread));
            }
            erase_deliveries(&tx, user, room).await?;
            tx.delete(&READ_UP_TO, room, user);
            tx.delete(&UNREAD, user, room);
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Deletes what the others of a room were told of the user's devices. In a large room that is next to
/// nothing, and not looked for beyond so many members.
async fn erase_deliveries(tx: &Tx, user: &UserId, room: &RoomId) -> Result<()> {
    let found = tx.unprotected();
    for (sender, _) in found.scan(&MEMBERS, room, Scan::all().limit(BATCH)).await? {
        for reach in [Reach::Server, Reach::Device] {
            let key = (room, user, reach.id());
            if found.get(&DELIVERED, sender.as_str(), key).await?.is_some() {
                tx.delete(&DELIVERED, sender.as_str(), key);
            }
        }
    }
    Ok(())
}

/// Deletes some of what is known of requests; whether there was any.
async fn erase_sent(accounts: &Accounts, user: &UserId) -> Result<bool> {
    let write = |tx: Tx| {
        async move {
            let (found, some) = (tx.unprotected(), || Scan::all().limit(BATCH));
            let requests = found.scan(&TRANSACTIONS, user, some()).await?;
            let events = found.scan(&EVENT_TXNS, user, some()).await?;
            for ((device, endpoint, id), _) in &requests {
                tx.delete(&TRANSACTIONS, user, (device, endpoint, id));
            }
            for (event, _) in &events {
                tx.delete(&EVENT_TXNS, user, event);
            }
            Ok(!requests.is_empty() || !events.is_empty())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
