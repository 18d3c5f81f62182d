//! Answers to transactions, remembered: a transaction that is sent again is answered alike.

use millrace_store::{
    Error, Read, Tx,
    tables::{INBOUND_ANSWERS, INBOUND_ANSWERS_HEAD},
};
use ruma::{ServerName, TransactionId};

/// So many transactions of each server are remembered. A server has one under way at a time.
const REMEMBERED: usize = 8;
const DIGEST_LEN: usize = 16;

/// What stands for a transaction ID.
fn digest(transaction: &TransactionId) -> [u8; DIGEST_LEN] {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(transaction.as_bytes());
    let mut digest = [0; DIGEST_LEN];
    digest.copy_from_slice(&hash[..DIGEST_LEN]);
    digest
}

/// What a transaction was answered, if it was and that is remembered.
pub(super) async fn find(
    read: &impl Read,
    origin: &ServerName,
    transaction: &TransactionId,
) -> Result<Option<String>, Error> {
    read.get(&INBOUND_ANSWERS, origin, digest(transaction)).await
}

/// Remembers what a transaction is answered, in place of the oldest such memory.
pub(super) async fn remember(
    tx: &Tx,
    origin: &ServerName,
    transaction: &TransactionId,
    answer: &str,
) -> Result<(), Error> {
    let mut newest = tx.get(&INBOUND_ANSWERS_HEAD, origin, ()).await?.unwrap_or_default();
    let digest = digest(transaction);
    newest.extend_from_slice(&digest);
    while newest.len() > REMEMBERED * DIGEST_LEN {
        let oldest: Vec<u8> = newest.drain(..DIGEST_LEN).collect();
        if let Ok(oldest) = <[u8; DIGEST_LEN]>::try_from(oldest) {
            tx.delete(&INBOUND_ANSWERS, origin, oldest);
        }
    }
    tx.put(&INBOUND_ANSWERS_HEAD, origin, (), &newest);
    tx.put(&INBOUND_ANSWERS, origin, digest, &answer.to_owned());
    Ok(())
}
