//! Messages to devices from users of other servers (spec: Server-Server API, Send-to-device
//! messaging).

use futures::FutureExt;
use millrace_store::{Read, Tx, tables::INBOUND_TO_DEVICE};
use ruma::UserId;

use super::{
    Messages, ToDeviceError,
    send::{DIGEST_LEN, deliver, digest},
};
use crate::Env;

/// So many messages of each sender are remembered: more than one transaction has.
const DIGESTS_MAX: usize = 256;

/// Puts messages of a user of another server into the queues of our users' devices, all or none. A
/// repeated message ID of the sender does nothing; devices that do not exist get nothing.
///
/// # Errors
/// As [`ToDeviceError`] says.
pub async fn receive(
    env: &Env,
    sender: &UserId,
    kind: &str,
    message_id: &str,
    messages: &Messages,
) -> Result<(), ToDeviceError> {
    let digest = &digest(kind, message_id);
    let write = |tx: Tx| {
        async move {
            if remember(&tx, sender, digest).await? {
                deliver(&tx, env, (sender, kind), messages).await?;
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Notes a message; `false` where it was noted before.
async fn remember(tx: &Tx, sender: &UserId, digest: &[u8]) -> millrace_store::Result<bool> {
    let mut sent = tx.get(&INBOUND_TO_DEVICE, sender, ()).await?.unwrap_or_default();
    if sent.chunks(DIGEST_LEN).any(|known| known == digest) {
        return Ok(false);
    }
    sent.extend_from_slice(digest);
    let excess = sent.len().saturating_sub(DIGESTS_MAX * DIGEST_LEN);
    sent.drain(..excess);
    tx.put(&INBOUND_TO_DEVICE, sender, (), &sent);
    Ok(true)
}
