//! Showing the keys of users of ours (spec: `POST /keys/query`).

use std::collections::BTreeMap;

use millrace_model::{
    client_event::push_json_str,
    encryption::{KeyObject, cross_signing_key},
};
use millrace_store::{
    Read, Result, Snapshot,
    rows::keys::UserKeys,
    tables::{ACCOUNTS, USER_KEYS, USER_SIGNATURES},
};
use ruma::{DeviceId, OwnedDeviceId, UserId};

/// Whether names of devices are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// They are.
    Shown,
    /// They are not.
    Hidden,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// A user of ours.
    User(&'a UserId),
    /// Another server.
    Server(Names),
}

/// The keys of a user, JSON texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The `DeviceKeys` of the devices that were asked for and have some.
    pub devices: Vec<(OwnedDeviceId, String)>,
    /// The master key, with the signatures that the reader may see.
    pub master: Option<String>,
    /// The self-signing key.
    pub self_signing: Option<String>,
    /// The user-signing key, for the user alone.
    pub user_signing: Option<String>,
}

/// The keys of a user of ours, of all devices or of those that are named; `None` where there is no
/// such user.
///
/// # Errors
/// Where the store cannot be read.
pub async fn query(
    snapshot: &Snapshot,
    reader: Reader<'_>,
    user: &UserId,
    devices: &[OwnedDeviceId],
) -> Result<Option<Published>> {
    let Some(keys) = snapshot.get(&USER_KEYS, user, ()).await? else {
        let account = snapshot.get(&ACCOUNTS, user, ()).await?;
        return Ok(account.map(|_| Published::default()));
    };
    let UserKeys { devices: published, master, self_signing, user_signing } = keys;
    let wanted = |id: &DeviceId| devices.is_empty() || devices.iter().any(|device| device == id);
    let named = reader != Reader::Server(Names::Hidden);
    let devices = published.into_iter().filter(|(id, _)| wanted(id)).map(|(id, device)| {
        let name = device.name.filter(|_| named);
        (id, with_name(device.keys, name.as_deref()))
    });
    let devices = devices.collect();
    let master = match (master, reader) {
        (Some(master), Reader::User(reader)) if reader != user => {
            Some(with_signatures_of(snapshot, reader, user, master).await?)
        }
        (master, _) => master,
    };
    let user_signing = user_signing.filter(|_| reader == Reader::User(user));
    Ok(Some(Published { devices, master, self_signing, user_signing }))
}

/// `DeviceKeys`, JSON text without `unsigned`, with the name of the device.
#[must_use]
pub fn with_name(mut keys: String, name: Option<&str>) -> String {
    if let Some(name) = name
        && keys.ends_with('}')
    {
        keys.pop();
        keys.push_str(r#","unsigned":{"device_display_name":"#);
        push_json_str(&mut keys, name);
        keys.push_str("}}");
    }
    keys
}

/// The master key of another user, ours or not, with the signatures that the reader has put on it.
///
/// # Errors
/// Where the store cannot be read.
pub async fn with_signatures_of(
    snapshot: &Snapshot,
    reader: &UserId,
    user: &UserId,
    master: String,
) -> Result<String> {
    let Ok(mut object) = KeyObject::parse(&master) else { return Ok(master) };
    let Some(key) = cross_signing_key(&object) else { return Ok(master) };
    let own = snapshot.get(&USER_SIGNATURES, reader, (user, key.name())).await?;
    let Some(own) = own else { return Ok(master) };
    let own: BTreeMap<String, String> = serde_json::from_str(&own).unwrap_or_default();
    object.add_signatures(reader, own.iter().map(|(id, text)| (id.as_str(), text.as_str())));
    Ok(object.to_json())
}
