//! Changes of devices of users who may be in rooms of which only a part of the members is known.

use futures::FutureExt;
use millrace_store::{Error, Read, Scan, Tx, tables::PARTIAL_DEVICES};
use ruma::UserId;

use crate::{
    Env,
    rooms::partial::{self, EARLY_MAX, may_be_member},
};

/// Notes that devices or keys of a user have changed, for those rooms of which it is not known yet
/// whether the user is in them: clients are told when it is.
///
/// # Errors
/// Where the store fails.
pub async fn keep(env: &Env, user: &UserId) -> Result<(), Error> {
    let snapshot = env.store.snapshot();
    for room in &partial::rooms(&snapshot).await? {
        if !may_be_member(&snapshot, room, user).await? {
            continue;
        }
        let kept = snapshot.scan(&PARTIAL_DEVICES, room, Scan::all().limit(EARLY_MAX)).await?;
        if kept.len() == EARLY_MAX || kept.iter().any(|(kept, ())| kept == user) {
            continue;
        }
        let write = |tx: Tx| {
            async move {
                // Else it was completed meanwhile, and nobody would look.
                if may_be_member(&tx, room, user).await? {
                    tx.put(&PARTIAL_DEVICES, room, user, &());
                }
                Ok(())
            }
            .boxed()
        };
        env.store.transact(write).await?;
    }
    Ok(())
}
