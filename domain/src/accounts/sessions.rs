//! Beginning and ending sessions: devices and their tokens, within a transaction.

use std::time::Duration;

use millrace_store::{
    Read, Result, Scan, Tx,
    rows::account::{AccessToken, Account, Device, RefreshToken},
    tables::{ACCESS_TOKENS, DEVICES, DEVICES_HEAD, DEVICES_SEEN, LOGIN_TOKENS, REFRESH_TOKENS},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{
    Accounts, DeviceFate, belongings, devices_changed, expiry_ms,
    token::{TokenKind, new_token},
};
use crate::keys;

/// Letters of a device ID that we choose.
const DEVICE_ID_LEN: usize = 10;

/// What a client says about the device that it logs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewDevice {
    /// The ID of a known device, which is logged in anew, or of a new one. None lets us choose.
    pub id: Option<OwnedDeviceId>,
    /// The name of a device that is not known yet.
    pub display_name: Option<String>,
    /// Whether the client can refresh tokens.
    pub refreshes: bool,
}

/// A session that has begun.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Whose.
    pub user: OwnedUserId,
    /// On which device.
    pub device: OwnedDeviceId,
    /// The secret of its requests.
    pub access_token: String,
    /// The secret with which it gets another access token.
    pub refresh_token: Option<String>,
    /// How long the access token lives; none is without end.
    pub expires_in: Option<Duration>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, device, .. } = self;
        f.debug_struct("Login").field("user", user).field("device", device).finish_non_exhaustive()
    }
}

/// Logs a device in. One that is known keeps its name and loses its earlier tokens.
pub(super) async fn begin(
    accounts: &Accounts,
    tx: &Tx,
    user: &UserId,
    account: &Account,
    new: &NewDevice,
) -> Result<Login> {
    let id = match &new.id {
        // A device is never named like a key, or one could be verified as the other.
        Some(id) if !keys::is_signing_key(tx, user, id).await? => id.clone(),
        _ => device_id(accounts),
    };
    let known = tx.get(&DEVICES, user, &*id).await?;
    if known.is_none() {
        devices_changed(tx, user, [&*id], DeviceFate::Changed).await?;
    }
    let old = known.unwrap_or_else(|| Device {
        display_name: new.display_name.clone(),
        created_ms: accounts.now_ms(),
        ..Device::default()
    });
    forget_tokens(tx, &old);
    let mut device =
        Device { access_tokens: Vec::new(), refresh_tokens: Vec::new(), login_token: None, ..old };
    let tokens = Tokens { refreshes: new.refreshes, account };
    let login = issue(accounts, tx, (user, &id), &mut device, tokens);
    put_device(tx, user, &id, &device).await?;
    Ok(login)
}

/// What new tokens are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub refreshes: bool,
    pub account: &'a Account,
}

/// Gives a device an access token, and a refresh token if it can use one.
pub(super) fn issue(
    accounts: &Accounts,
    tx: &Tx,
    (user, id): (&UserId, &DeviceId),
    device: &mut Device,
    tokens: Tokens<'_>,
) -> Login {
    let (lifetimes, now_ms) = (&accounts.settings.lifetimes, accounts.now_ms());
    let expires_in =
        if tokens.refreshes { lifetimes.refreshable_access_token } else { lifetimes.access_token };
    let (access_token, access_hash) = new_token(&accounts.env, TokenKind::Access);
    let row = AccessToken {
        user: user.to_owned(),
        device: id.to_owned(),
        guest: tokens.account.guest,
        admin: tokens.account.admin,
        suspended: tokens.account.suspended,
        locked: tokens.account.locked,
        expires_ms: expires_in.map(|lifetime| expiry_ms(now_ms, lifetime)),
        unproven_with: None,
    };
    tx.put(&ACCESS_TOKENS, access_hash, (), &row);
    device.access_tokens.push(access_hash);
    let refresh_token = tokens.refreshes.then(|| {
        let (text, hash) = new_token(&accounts.env, TokenKind::Refresh);
        let expires_ms = lifetimes.refresh_token.map(|lifetime| expiry_ms(now_ms, lifetime));
        let (user, device_id) = (user.to_owned(), id.to_owned());
        let row = RefreshToken { user, device: device_id, access_token: access_hash, expires_ms };
        tx.put(&REFRESH_TOKENS, hash, (), &row);
        device.refresh_tokens.push(hash);
        text
    });
    let (user, device) = (user.to_owned(), id.to_owned());
    Login { user, device, access_token, refresh_token, expires_in }
}

/// Writes a device and the head that guards a user's devices.
pub(super) async fn put_device(
    tx: &Tx,
    user: &UserId,
    id: &DeviceId,
    device: &Device,
) -> Result<()> {
    tx.put(&DEVICES, user, id, device);
    count_change(tx, user).await
}

/// All devices of a user, guarded against changes until the commit.
pub(super) async fn all_devices(tx: &Tx, user: &UserId) -> Result<Vec<(OwnedDeviceId, Device)>> {
    tx.get(&DEVICES_HEAD, user, ()).await?;
    tx.scan(&DEVICES, user, Scan::all()).await
}

/// Ends the sessions of these devices and forgets the devices.
pub(super) async fn end(tx: &Tx, user: &UserId, devices: &[(OwnedDeviceId, Device)]) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    for (id, device) in devices {
        forget_tokens(tx, device);
        tx.delete(&DEVICES, user, id);
        tx.delete(&DEVICES_SEEN, user, id);
    }
    count_change(tx, user).await?;
    let ids: Vec<_> = devices.iter().map(|(id, _)| &**id).collect();
    devices_changed(tx, user, ids.iter().copied(), DeviceFate::Deleted).await?;
    belongings::forget(tx, user, &ids).await
}

/// Deletes every token of a device.
fn forget_tokens(tx: &Tx, device: &Device) {
    for hash in &device.access_tokens {
        tx.delete(&ACCESS_TOKENS, hash, ());
    }
    for hash in &device.refresh_tokens {
        tx.delete(&REFRESH_TOKENS, hash, ());
    }
    if let Some(hash) = &device.login_token {
        tx.delete(&LOGIN_TOKENS, hash, ());
    }
}

async fn count_change(tx: &Tx, user: &UserId) -> Result<()> {
    let changes = tx.get(&DEVICES_HEAD, user, ()).await?.unwrap_or(0);
    tx.put(&DEVICES_HEAD, user, (), &(changes + 1));
    Ok(())
}

/// Ten capital letters.
fn device_id(accounts: &Accounts) -> OwnedDeviceId {
    let mut bytes = [0; DEVICE_ID_LEN];
    accounts.env.random.fill(&mut bytes);
    let letters: String = bytes.iter().map(|byte| char::from(b'A' + byte % 26)).collect();
    OwnedDeviceId::from(letters)
}
