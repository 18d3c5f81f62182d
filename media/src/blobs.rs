//! How many media consist of a file: it is removed when none does.

use millrace_store::{
    Node, Read, Result, Tx,
    rows::media::{Blob, BlobHash},
    tables::{BLOBS, BLOBS_UNUSED},
};

/// Notes one more use of a file, which is in the storage.
pub(crate) async fn add_use(tx: &Tx, hash: &BlobHash, bytes: u64) -> Result<()> {
    let blob = tx.get(&BLOBS, hash, ()).await?;
    let uses = blob.map_or(0, |blob| blob.uses) + 1;
    if uses == 1 {
        tx.delete(&BLOBS_UNUSED, Node, hash);
    }
    tx.put(&BLOBS, hash, (), &Blob { uses, bytes });
    Ok(())
}

/// Notes one use less; at the last, the file is to be removed.
pub(crate) async fn remove_use(tx: &Tx, hash: &BlobHash) -> Result<()> {
    let Some(mut blob) = tx.get(&BLOBS, hash, ()).await? else { return Ok(()) };
    blob.uses = blob.uses.saturating_sub(1);
    if blob.uses == 0 {
        tx.put(&BLOBS_UNUSED, Node, hash, &());
    }
    tx.put(&BLOBS, hash, (), &blob);
    Ok(())
}
