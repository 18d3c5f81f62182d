//! The keys in a backup.

use std::collections::BTreeMap;

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Snapshot, Tx,
    rows::keys::{BackedUpKey, Backup},
    tables::{BACKED_UP_KEYS, BACKUPS, BACKUPS_HEAD},
};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::json;

use super::{BackupError, BackupState, find, find_current};
use crate::{Env, json::Object};

/// So many keys are stored in one commit.
const STORED_AT_ONCE: usize = 500;
/// So many bytes of keys are stored in one commit, but for one that is larger.
const BYTES_AT_ONCE: usize = 2 << 20;
/// So many keys are deleted in one commit.
const DELETED_AT_ONCE: usize = 1_000;
/// So many keys are read at once.
const READ_AT_ONCE: usize = 2_000;
/// The largest encrypted key, in bytes of JSON.
const KEY_BYTES_MAX: usize = 64 << 10;
/// The longest ID of a session, in bytes.
const SESSION_BYTES_MAX: usize = 255;

/// Keys by room and session.
pub type RoomKeys = BTreeMap<OwnedRoomId, BTreeMap<String, BackedUpKey>>;

/// Which keys of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// All.
    All,
    /// Those of a room.
    Room(&'a RoomId),
    /// That of a session.
    Session(&'a RoomId, &'a str),
}

impl Selection<'_> {
    fn scan(self, version: u64) -> Scan {
        match self {
            Self::All => Scan::prefix(version),
            Self::Room(room) => Scan::prefix((version, room)),
            Self::Session(room, session) => Scan::prefix((version, room, session)),
        }
    }
}

/// The key of a row: version, room, session.
type Place = (u64, OwnedRoomId, String);

/// Stores keys in the current backup, where they are better than those that are there. A large number
/// of them takes several commits; storing them again does no harm.
///
/// # Errors
/// As [`BackupError`] says.
pub async fn store_keys(
    env: &Env,
    user: &UserId,
    version: u64,
    keys: &RoomKeys,
) -> Result<BackupState, BackupError> {
    let sessions = || keys.values().flatten();
    if sessions().any(|(_, key)| key.session_data.len() > KEY_BYTES_MAX) {
        return Err(BackupError::TooLarge("a key is too large"));
    }
    if sessions().any(|(session, _)| session.len() > SESSION_BYTES_MAX) {
        return Err(BackupError::TooLarge("the ID of a session is too long"));
    }
    let all: Vec<(Place, &BackedUpKey)> = keys
        .iter()
        .flat_map(|(room, keys)| {
            keys.iter().map(|(session, key)| ((version, room.clone(), session.clone()), key))
        })
        .collect();
    let mut state = None;
    let mut rest = &all[..];
    loop {
        let (some, more) = rest.split_at(fitting(rest));
        state = Some(store_some(env, user, version, some).await?).or(state);
        rest = more;
        if rest.is_empty() {
            return state.ok_or(BackupError::Unknown);
        }
    }
}

/// How many of the first keys fit into one commit.
fn fitting(keys: &[(Place, &BackedUpKey)]) -> usize {
    let mut bytes = 0;
    let fit = keys.iter().take(STORED_AT_ONCE).take_while(|(_, key)| {
        bytes += key.session_data.len();
        bytes <= BYTES_AT_ONCE
    });
    fit.count().max(1).min(keys.len())
}

async fn store_some(
    env: &Env,
    user: &UserId,
    version: u64,
    keys: &[(Place, &BackedUpKey)],
) -> Result<BackupState, BackupError> {
    let write = |tx: Tx| {
        async move {
            let mut backup = find_current(&tx, user, version).await?;
            let places = keys.iter().map(|(place, _)| place);
            let known = tx.get_many(&BACKED_UP_KEYS, user, places).await?;
            let mut changed = false;
            for ((place, key), known) in keys.iter().zip(known) {
                if known.as_ref().is_some_and(|known| !is_better(key, known)) {
                    continue;
                }
                backup.count += u64::from(known.is_none());
                changed = true;
                tx.put(&BACKED_UP_KEYS, user, place, key);
            }
            if changed {
                put_changed(&tx, user, version, &mut backup).await?;
            }
            Ok(BackupState { count: backup.count, etag: backup.etag })
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}

/// Whether a key is to replace one that is known (spec: Server-side key backups).
fn is_better(new: &BackedUpKey, known: &BackedUpKey) -> bool {
    let rank = |key: &BackedUpKey| (!key.is_verified, key.first_message_index, key.forwarded_count);
    rank(new) < rank(known)
}

async fn put_changed(
    tx: &Tx,
    user: &UserId,
    version: u64,
    backup: &mut Backup,
) -> millrace_store::Result<()> {
    backup.etag += 1;
    // The head guards the versions, and stays as it is.
    let head = tx.get(&BACKUPS_HEAD, user, ()).await?.unwrap_or_default();
    tx.put(&BACKUPS_HEAD, user, (), &head);
    tx.put(&BACKUPS, user, version, backup);
    Ok(())
}

/// Keys of a backup.
///
/// # Errors
/// [`BackupError::Unknown`] where there is no such backup.
pub async fn keys(
    env: &Env,
    user: &UserId,
    version: u64,
    selection: Selection<'_>,
) -> Result<RoomKeys, BackupError> {
    let snapshot = env.store.snapshot();
    find(&snapshot, user, version).await?;
    let mut keys = RoomKeys::new();
    let mut pages = Pages::new(&snapshot, user, version, selection);
    while let Some(page) = pages.next().await? {
        for ((_, room, session), key) in page {
            keys.entry(room).or_default().insert(session, key);
        }
    }
    Ok(keys)
}

/// All keys of a backup as the body of a response, which is too large to be held in pieces.
///
/// # Errors
/// [`BackupError::Unknown`] where there is no such backup.
pub async fn keys_json(env: &Env, user: &UserId, version: u64) -> Result<String, BackupError> {
    let snapshot = env.store.snapshot();
    find(&snapshot, user, version).await?;
    let mut json = String::new();
    let mut body = Object::begin(&mut json);
    let mut rooms = body.object("rooms");
    let mut pages = Pages::new(&snapshot, user, version, Selection::All);
    let mut rows = pages.next().await?.unwrap_or_default().into_iter().peekable();
    while let Some(((_, room, _), _)) = rows.peek() {
        let room = room.clone();
        let mut of_room = rooms.object(room.as_str());
        let mut sessions = of_room.object("sessions");
        loop {
            while let Some(((_, _, session), key)) = rows.next_if(|((_, of, _), _)| *of == room) {
                put_key(&mut sessions, &session, &key);
            }
            if rows.peek().is_some() {
                break;
            }
            match pages.next().await? {
                Some(page) => rows = page.into_iter().peekable(),
                None => break,
            }
        }
        sessions.end();
        of_room.end();
    }
    rooms.end();
    body.end();
    Ok(json)
}

fn put_key(sessions: &mut Object<'_>, session: &str, key: &BackedUpKey) {
    let mut object = sessions.object(session);
    object.put("first_message_index", &key.first_message_index);
    object.put("forwarded_count", &key.forwarded_count);
    object.put("is_verified", &json!(key.is_verified));
    object.field("session_data").push_str(&key.session_data);
    object.end();
}

/// Deletes keys of a backup, in small commits. That there are none is no error.
///
/// # Errors
/// [`BackupError::Unknown`] where there is no such backup.
pub async fn delete_keys(
    env: &Env,
    user: &UserId,
    version: u64,
    selection: Selection<'_>,
) -> Result<BackupState, BackupError> {
    loop {
        let scan = selection.scan(version).limit(DELETED_AT_ONCE);
        let rows = env.store.snapshot().scan(&BACKED_UP_KEYS, user, scan).await?;
        let places: Vec<Place> = rows.into_iter().map(|(place, _)| place).collect();
        let state = delete_some(env, user, version, &places).await?;
        if places.len() < DELETED_AT_ONCE {
            return Ok(state);
        }
    }
}

async fn delete_some(
    env: &Env,
    user: &UserId,
    version: u64,
    places: &[Place],
) -> Result<BackupState, BackupError> {
    let write = |tx: Tx| {
        async move {
            let mut backup = find(&tx, user, version).await?;
            let known = tx.get_many(&BACKED_UP_KEYS, user, places.iter()).await?;
            let count = known.iter().flatten().count() as u64;
            for place in places {
                tx.delete(&BACKED_UP_KEYS, user, place);
            }
            if count > 0 {
                backup.count = backup.count.saturating_sub(count);
                put_changed(&tx, user, version, &mut backup).await?;
            }
            Ok(BackupState { count: backup.count, etag: backup.etag })
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}

/// Reads keys page by page.
struct Pages<'a> {
    snapshot: &'a Snapshot,
    user: &'a UserId,
    scan: Scan,
    after: Option<Place>,
    is_done: bool,
}

impl<'a> Pages<'a> {
    fn new(
        snapshot: &'a Snapshot,
        user: &'a UserId,
        version: u64,
        selection: Selection<'_>,
    ) -> Self {
        let scan = selection.scan(version).limit(READ_AT_ONCE);
        Self { snapshot, user, scan, after: None, is_done: false }
    }

    async fn next(&mut self) -> millrace_store::Result<Option<Vec<(Place, BackedUpKey)>>> {
        if self.is_done {
            return Ok(None);
        }
        let scan = match &self.after {
            Some(after) => self.scan.clone().after(after),
            None => self.scan.clone(),
        };
        let rows = self.snapshot.scan(&BACKED_UP_KEYS, self.user, scan).await?;
        self.is_done = rows.len() < READ_AT_ONCE;
        self.after = rows.last().map(|(place, _)| place.clone());
        Ok((!rows.is_empty()).then_some(rows))
    }
}

#[cfg(test)]
mod tests;
