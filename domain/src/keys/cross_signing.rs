//! A user's keys for cross-signing (spec: Cross-signing, `POST /keys/device_signing/upload`).

use futures::FutureExt;
use millrace_model::encryption::{
    InvalidKey, KeyObject, SigningKeyOf, Usage, check_cross_signing_key, cross_signing_key,
};
use millrace_store::{
    Read, Tx,
    rows::keys::UserKeys,
    tables::{DEVICES, USER_KEYS},
};
use ruma::{DeviceId, UserId};

use crate::{
    Env,
    accounts::{AuthenticateError, Requester, confirm, signing_keys_changed},
};

/// Keys that a user publishes, JSON texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSigningKeys {
    /// The master key.
    pub master: Option<String>,
    /// The self-signing key.
    pub self_signing: Option<String>,
    /// The user-signing key.
    pub user_signing: Option<String>,
}

/// Whether the user has shown by more than a token that it is they.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// They have.
    Yes,
    /// It was not asked for.
    No,
}

/// Why keys were not published; then none of them was.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    /// A key is not what it should be.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// There is no master key that could have signed the others.
    #[error("there is no master key")]
    NoMaster,
    /// A device has the ID that the key would have.
    #[error("the key is the ID of one of the user's devices")]
    InUse,
    /// Other keys were published meanwhile, which only a confirmed request may replace.
    #[error("the keys were changed meanwhile; try again")]
    Unconfirmed,
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not read or write keys")]
    Store(#[from] millrace_store::Error),
}

/// A key whose form was checked.
struct Parsed {
    usage: Usage,
    object: KeyObject,
    key: SigningKeyOf,
}

/// Whether an upload would replace or add keys of a user who has a master key already, so that it
/// needs more than a token (spec: since v1.11).
///
/// # Errors
/// As [`SigningKeysError`] says.
pub async fn brings_new_keys(
    env: &Env,
    user: &UserId,
    new: &NewSigningKeys,
) -> Result<bool, SigningKeysError> {
    let parsed = parse(user, new)?;
    let known = env.store.snapshot().get(&USER_KEYS, user, ()).await?;
    Ok(replaces(&parsed, &known.unwrap_or_default()))
}

/// Publishes keys of the requester. Those that a new master key has not signed are gone with the old
/// one.
///
/// # Errors
/// As [`SigningKeysError`] says.
pub async fn upload_signing_keys(
    env: &Env,
    requester: &Requester,
    new: &NewSigningKeys,
    confirmed: Confirmed,
) -> Result<(), SigningKeysError> {
    let user = &*requester.user;
    let parsed = &parse(user, new)?;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let mut keys = tx.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
            if confirmed == Confirmed::No && replaces(parsed, &keys) {
                return Err(SigningKeysError::Unconfirmed);
            }
            let before = keys.clone();
            take_over(&tx, user, &mut keys, parsed).await?;
            if keys != before {
                tx.put(&USER_KEYS, user, (), &keys);
                signing_keys_changed(&tx, user).await?;
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}

/// The keys in the order in which they sign each other.
fn parse(user: &UserId, new: &NewSigningKeys) -> Result<Vec<Parsed>, SigningKeysError> {
    let given = [
        (Usage::Master, &new.master),
        (Usage::SelfSigning, &new.self_signing),
        (Usage::UserSigning, &new.user_signing),
    ];
    let mut parsed = Vec::new();
    for (usage, json) in given {
        let Some(json) = json else { continue };
        let object = KeyObject::parse(json)?;
        let key = check_cross_signing_key(&object, user, usage)?;
        parsed.push(Parsed { usage, object, key });
    }
    Ok(parsed)
}

fn replaces(new: &[Parsed], known: &UserKeys) -> bool {
    let is_known = |new: &Parsed| {
        let known = slot(known, new.usage).and_then(|known| KeyObject::parse(known).ok());
        known.is_some_and(|known| known.is_same_key(&new.object))
    };
    known.master.is_some() && !new.iter().all(is_known)
}

async fn take_over(
    tx: &Tx,
    user: &UserId,
    keys: &mut UserKeys,
    new: &[Parsed],
) -> Result<(), SigningKeysError> {
    for Parsed { usage, object, key } in new {
        if tx.get(&DEVICES, user, <&DeviceId>::from(key.name())).await?.is_some() {
            return Err(SigningKeysError::InUse);
        }
        let known = slot(keys, *usage).and_then(|known| KeyObject::parse(known).ok());
        let known = known.filter(|known| known.is_same_key(object));
        if *usage != Usage::Master {
            let master = master_of(keys).ok_or(SigningKeysError::NoMaster)?;
            object.verify(user, &master.id, &master.key)?;
        }
        let mut kept = known.unwrap_or_else(|| object.without_signatures());
        kept.add_signatures(user, object.signatures_of(user));
        *slot_mut(keys, *usage) = Some(kept.to_json());
    }
    drop_unsigned(user, keys);
    Ok(())
}

/// Drops the keys that the master key did not sign: they were signed by one before.
fn drop_unsigned(user: &UserId, keys: &mut UserKeys) {
    let Some(master) = master_of(keys) else { return };
    for usage in [Usage::SelfSigning, Usage::UserSigning] {
        let object = slot(keys, usage).and_then(|json| KeyObject::parse(json).ok());
        let signed = object.is_some_and(|key| key.verify(user, &master.id, &master.key).is_ok());
        if !signed {
            *slot_mut(keys, usage) = None;
        }
    }
}

fn master_of(keys: &UserKeys) -> Option<SigningKeyOf> {
    cross_signing_key(&KeyObject::parse(keys.master.as_deref()?).ok()?)
}

fn slot(keys: &UserKeys, usage: Usage) -> Option<&str> {
    match usage {
        Usage::Master => keys.master.as_deref(),
        Usage::SelfSigning => keys.self_signing.as_deref(),
        Usage::UserSigning => keys.user_signing.as_deref(),
    }
}

fn slot_mut(keys: &mut UserKeys, usage: Usage) -> &mut Option<String> {
    match usage {
        Usage::Master => &mut keys.master,
        Usage::SelfSigning => &mut keys.self_signing,
        Usage::UserSigning => &mut keys.user_signing,
    }
}
