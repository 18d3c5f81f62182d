//! Messages to devices of other servers' users: they wait in a queue of their server until it has
//! acknowledged them (spec: Server-Server API, Send-to-device messaging).

use std::collections::BTreeMap;

use millrace_store::{
    Read, Tx,
    rows::{outbox::RemoteToDevice, user::ToDeviceHead},
    tables::{TO_DEVICE_OUT, TO_DEVICE_OUT_HEAD},
};
use ruma::{CanonicalJsonObject, ServerName, UserId};

use super::send::{Messages, ToDeviceError};
use crate::{Env, outbox};

/// So many messages wait for one server; when there are more, the oldest go.
pub const REMOTE_QUEUE_MAX: u64 = 10_000;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub sender: &'a UserId,
    pub kind: &'a str,
}

// Canonical, as the request that carries it is signed.
type Contents<'a> = BTreeMap<&'a UserId, BTreeMap<&'a str, CanonicalJsonObject>>;

/// Queues what is for users of other servers, one message for each server. `room` is how many bytes
/// may be queued.
pub(super) async fn queue(
    tx: &Tx,
    env: &Env,
    sent: Sent<'_>,
    (messages, mut room): (&Messages, usize),
) -> Result<(), ToDeviceError> {
    let mut servers: BTreeMap<&ServerName, Contents<'_>> = BTreeMap::new();
    for (user, targets) in messages.iter().filter(|(user, _)| !env.is_local(user)) {
        let contents = servers.entry(user.server_name()).or_default().entry(user).or_default();
        for (target, content) in targets {
            let size = content.len() + sent.kind.len();
            room = room.checked_sub(size).ok_or(ToDeviceError::TooLarge)?;
            let content = serde_json::from_str(content).map_err(ToDeviceError::Content)?;
            contents.insert(target.device().map_or("*", |device| device.as_str()), content);
        }
    }
    for (server, contents) in servers {
        let messages = serde_json::to_string(&contents).map_err(ToDeviceError::Content)?;
        push(tx, env, server, (sent, messages)).await?;
    }
    Ok(())
}

async fn push(
    tx: &Tx,
    env: &Env,
    server: &ServerName,
    (sent, messages): (Sent<'_>, String),
) -> millrace_store::Result<()> {
    let mut head = tx.get(&TO_DEVICE_OUT_HEAD, server, ()).await?.unwrap_or_default();
    head.last += 1;
    while head.last - head.first >= REMOTE_QUEUE_MAX {
        tx.delete(&TO_DEVICE_OUT, server, head.first);
        head.first += 1;
    }
    let row = RemoteToDevice {
        id: env.random_text(16),
        sender: sent.sender.to_owned(),
        kind: sent.kind.to_owned(),
        messages,
        sent_ms: env.now().get().into(),
    };
    tx.put(&TO_DEVICE_OUT, server, head.last, &row);
    tx.put(&TO_DEVICE_OUT_HEAD, server, (), &head);
    outbox::announce(tx, &outbox::News::ToDevice(server.to_owned()));
    Ok(())
}

/// Deletes the messages for a server up to the `up_to`th, which it has or will never get.
///
/// # Errors
/// Where the store fails.
pub async fn forget_sent(tx: &Tx, server: &ServerName, up_to: u64) -> millrace_store::Result<()> {
    let head = tx.get(&TO_DEVICE_OUT_HEAD, server, ()).await?.unwrap_or_default();
    let up_to = up_to.min(head.last);
    if head.first > up_to {
        return Ok(());
    }
    for n in head.first..=up_to {
        tx.delete(&TO_DEVICE_OUT, server, n);
    }
    tx.put(&TO_DEVICE_OUT_HEAD, server, (), &ToDeviceHead { first: up_to + 1, ..head });
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_store::Scan;
    use ruma::{device_id, server_name, user_id};

    use super::*;
    use crate::{
        testing,
        to_device::{Target, send},
    };

    fn to(user: &UserId, device: &str, content: &str) -> Messages {
        let targets = BTreeMap::from([(Target::Device(device.into()), content.to_owned())]);
        BTreeMap::from([(user.to_owned(), targets)])
    }

    #[tokio::test]
    async fn messages_for_another_server_wait_in_order_and_a_repeated_request_adds_none() {
        let env = testing::env().await;
        let from = (user_id!("@alice:test.example"), device_id!("D"));
        let bob = user_id!("@bob:far.example");
        for (transaction, content) in
            [("1", r#"{"n":1}"#), ("2", r#"{"n":2}"#), ("1", r#"{"n":1}"#)]
        {
            send(&env, from, "t", transaction, &to(bob, "B", content)).await.unwrap();
        }
        let far = server_name!("far.example");
        let rows = env.store.snapshot().scan(&TO_DEVICE_OUT, far, Scan::all()).await.unwrap();
        let waiting: Vec<_> = rows.iter().map(|(n, row)| (*n, row.messages.as_str())).collect();
        let content = |n| format!(r#"{{"@bob:far.example":{{"B":{{"n":{n}}}}}}}"#);
        assert_eq!(waiting, [(1, content(1).as_str()), (2, content(2).as_str())]);
        assert_ne!(rows[0].1.id, rows[1].1.id);
    }

    #[tokio::test]
    async fn when_too_many_wait_the_oldest_go() {
        let env = testing::env().await;
        let far = server_name!("far.example");
        let sent = Sent { sender: user_id!("@alice:test.example"), kind: "t" };
        let env = &env;
        for some in 0..11 {
            let queued = env.store.transact(|tx| {
                futures::FutureExt::boxed(async move {
                    for n in 0..1000 {
                        push(&tx, env, far, (sent, format!("{}", some * 1000 + n))).await?;
                    }
                    Ok::<_, millrace_store::Error>(())
                })
            });
            queued.await.unwrap();
        }
        let rows = env.store.snapshot().scan(&TO_DEVICE_OUT, far, Scan::all()).await.unwrap();
        assert_eq!(rows.len() as u64, REMOTE_QUEUE_MAX);
        assert_eq!(rows[0].1.messages, "1000");
    }
}
