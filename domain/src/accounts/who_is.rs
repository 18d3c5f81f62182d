//! Where a user is logged in (spec: Client-Server API, `GET /admin/whois/{userId}`).

use millrace_store::{Read, tables::ACCOUNTS};
use ruma::UserId;

use super::{Accounts, DeviceInfo, ModerateError, Requester, devices::devices};

/// The devices of `user`, and where they were last seen: for the user, and for administrators.
///
/// # Errors
/// As [`ModerateError`] says.
pub async fn who_is(
    accounts: &Accounts,
    requester: &Requester,
    user: &UserId,
) -> Result<Vec<DeviceInfo>, ModerateError> {
    if requester.user != user && !requester.admin {
        return Err(ModerateError::NotAdmin);
    }
    if !accounts.env.is_local(user) {
        return Err(ModerateError::OtherServer(user.to_owned()));
    }
    if accounts.env.store.snapshot().get(&ACCOUNTS, user, ()).await?.is_none() {
        return Err(ModerateError::Unknown(user.to_owned()));
    }
    Ok(devices(accounts, user).await?)
}
