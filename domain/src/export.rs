//! Everything that this server holds of one of its users, for the user to have (the right of access
//! of privacy laws).
//!
//! Lines of JSON, each with a `kind` and `data`: the account, what belongs to it, and what the user
//! sent, room by room. Passwords and tokens are no data about the user, and are left out. Each room is
//! read in small steps, so that an export takes little memory whatever its size.

use millrace_model::client_event::RoomIdField;
use millrace_store::{
    Node, Read, Scan, Snapshot,
    rows::{
        receipt::{Reach, ReceiptKind},
        room::UserRoom,
        user::ThreadSubscription,
    },
    tables::{
        ACCOUNT_DATA, ACCOUNTS, BACKED_UP_KEYS, BACKUPS, CONSENTS, DEHYDRATED_DEVICES, DELIVERED,
        DEVICES, DEVICES_SEEN, FILTERS, PROFILES, PUSHERS, RECEIPTS, REPORTS, SSO_SUBJECTS,
        THREAD_SUBSCRIPTIONS, THREEPID_BINDINGS, THREEPIDS, TIMELINE, TO_DEVICE, USER_KEYS,
        USER_ROOMS, USER_SIGNATURES,
    },
};
use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use crate::rooms::{ReadError, RoomView, Rooms, Viewer};

/// Rows of a timeline that are looked at in one step.
const STEP: usize = 500;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such account here, and was none.
    #[error("there is no user {0}")]
    Unknown(OwnedUserId),
    /// Nobody listens any more.
    #[error("the export was broken off")]
    BrokenOff,
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Whether there is or was an account of this name.
///
/// # Errors
/// [`ExportError::Unknown`] where not.
pub async fn check(rooms: &Rooms, user: &UserId) -> Result<(), ExportError> {
    let account = rooms.env.store.snapshot().get(&ACCOUNTS, user, ()).await?;
    account.map(drop).ok_or_else(|| ExportError::Unknown(user.to_owned()))
}

/// Sends the lines of all but media, which this crate does not know, and [`end`].
///
/// # Errors
/// As [`ExportError`] says. Whoever gets no last line of the kind `end` has not got all.
pub async fn export(rooms: &Rooms, user: &UserId, out: &Lines) -> Result<(), ExportError> {
    let snapshot = rooms.env.store.snapshot();
    account(&snapshot, user, out).await?;
    belongings(&snapshot, user, out).await?;
    encryption(&snapshot, user, out).await?;
    let viewer = Viewer { user: user.to_owned(), device: None, ignored: Default::default() };
    for (room, row) in snapshot.scan(&USER_ROOMS, user, Scan::all()).await? {
        room_of(rooms, (&snapshot, &viewer), (&room, row), out).await?;
    }
    for ((at, _), report) in snapshot.scan(&REPORTS, Node, Scan::all()).await? {
        if report.reporter == user {
            let (subject, reason) = (report.subject, report.reason);
            out.put("report", json!({ "at": at, "subject": subject, "reason": reason })).await?;
        }
    }
    Ok(())
}

/// Sends the last line.
///
/// # Errors
/// Where nobody listens any more.
pub async fn end(user: &UserId, out: &Lines) -> Result<(), ExportError> {
    out.put("end", json!({ "user_id": user })).await
}

/// Where lines go, each with its end.
#[derive(Debug)]
pub struct Lines(pub Sender<String>);

impl Lines {
    /// Sends one line.
    ///
    /// # Errors
    /// Where nobody listens any more.
    pub async fn put(&self, kind: &str, data: Value) -> Result<(), ExportError> {
        let line = format!("{}\n", json!({ "kind": kind, "data": data }));
        self.0.send(line).await.map_err(|_| ExportError::BrokenOff)
    }
}

async fn account(snapshot: &Snapshot, user: &UserId, out: &Lines) -> Result<(), ExportError> {
    let account = snapshot.get(&ACCOUNTS, user, ()).await?;
    let account = account.ok_or_else(|| ExportError::Unknown(user.to_owned()))?;
    let account = json!({
        "user_id": user,
        "created": account.created_ms,
        "guest": account.guest,
        "admin": account.admin,
        "user_type": account.user_type,
        "suspended": account.suspended,
        "locked": account.locked,
        "deactivated": account.deactivated.map(|deactivated| deactivated.at_ms),
    });
    out.put("account", account).await?;
    for (field, value) in snapshot.scan(&PROFILES, user, Scan::all()).await? {
        out.put("profile", json!({ "field": field, "value": parsed(&value) })).await?;
    }
    for ((medium, address), row) in snapshot.scan(&THREEPIDS, user, Scan::all()).await? {
        let data = json!({
            "medium": medium,
            "address": address,
            "validated": row.validated_ms,
            "added": row.added_ms,
        });
        out.put("third_party_id", data).await?;
    }
    for ((medium, address, server), ()) in
        snapshot.scan(&THREEPID_BINDINGS, user, Scan::all()).await?
    {
        let data = json!({ "medium": medium, "address": address, "identity_server": server });
        out.put("third_party_id_binding", data).await?;
    }
    for ((provider, subject), ()) in snapshot.scan(&SSO_SUBJECTS, user, Scan::all()).await? {
        let data = json!({ "provider": provider, "subject": subject });
        out.put("single_sign_on", data).await?;
    }
    let consent = snapshot.get(&CONSENTS, user, ()).await?.unwrap_or_default();
    for (document, (version, at)) in consent.documents {
        out.put("consent", json!({ "document": document, "version": version, "at": at })).await?;
    }
    for (id, device) in snapshot.scan(&DEVICES, user, Scan::all()).await? {
        let seen = snapshot.get(&DEVICES_SEEN, user, &id).await?;
        let device = json!({
            "device_id": id,
            "display_name": device.display_name,
            "created": device.created_ms,
            "last_seen": seen.as_ref().map(|seen| seen.at_ms),
            "last_seen_ip": seen.as_ref().map(|seen| seen.ip.clone()),
            "last_seen_user_agent": seen.and_then(|seen| seen.user_agent),
        });
        out.put("device", device).await?;
    }
    Ok(())
}

async fn belongings(snapshot: &Snapshot, user: &UserId, out: &Lines) -> Result<(), ExportError> {
    for ((room, kind), content) in snapshot.scan(&ACCOUNT_DATA, user, Scan::all()).await? {
        let room = Some(room).filter(|room| !room.is_empty());
        let data = json!({ "room_id": room, "type": kind, "content": parsed(&content) });
        out.put("account_data", data).await?;
    }
    for (id, filter) in snapshot.scan(&FILTERS, user, Scan::all()).await? {
        out.put("filter", json!({ "filter_id": id, "filter": parsed(&filter) })).await?;
    }
    for (_, pusher) in snapshot.scan(&PUSHERS, user, Scan::all()).await? {
        let data = json!({ "device_id": pusher.device, "pusher": parsed(&pusher.json) });
        out.put("pusher", data).await?;
    }
    for ((room, root), said) in snapshot.scan(&THREAD_SUBSCRIPTIONS, user, Scan::all()).await? {
        let subscribed = matches!(said, ThreadSubscription::Subscribed { .. });
        let data = json!({ "room_id": room, "thread": root, "subscribed": subscribed });
        out.put("thread_subscription", data).await?;
    }
    for ((device, _), message) in snapshot.scan(&TO_DEVICE, user, Scan::all()).await? {
        let data = json!({
            "device_id": device,
            "sender": message.sender,
            "type": message.kind,
            "content": parsed(&message.content),
        });
        out.put("message_to_device", data).await?;
    }
    Ok(())
}

/// Public keys, and what is kept encrypted for the user.
async fn encryption(snapshot: &Snapshot, user: &UserId, out: &Lines) -> Result<(), ExportError> {
    let keys = snapshot.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
    for (device, published) in keys.devices {
        let data = json!({ "device_id": device, "keys": parsed(&published.keys) });
        out.put("device_keys", data).await?;
    }
    let signing = [
        ("master", keys.master),
        ("self_signing", keys.self_signing),
        ("user_signing", keys.user_signing),
    ];
    for (usage, key) in signing {
        if let Some(key) = key {
            out.put("signing_key", json!({ "usage": usage, "key": parsed(&key) })).await?;
        }
    }
    for ((owner, key), signatures) in snapshot.scan(&USER_SIGNATURES, user, Scan::all()).await? {
        let data = json!({ "user_id": owner, "key": key, "signatures": parsed(&signatures) });
        out.put("signature", data).await?;
    }
    if let Some(dehydrated) = snapshot.get(&DEHYDRATED_DEVICES, user, ()).await? {
        let data = json!({ "device_id": dehydrated.device, "data": parsed(&dehydrated.data) });
        out.put("dehydrated_device", data).await?;
    }
    for (version, backup) in snapshot.scan(&BACKUPS, user, Scan::all()).await? {
        if backup.deleted {
            continue;
        }
        let data = json!({
            "version": version.to_string(),
            "algorithm": backup.algorithm,
            "auth_data": parsed(&backup.auth_data),
        });
        out.put("backup", data).await?;
        backed_up_keys(snapshot, (user, version), out).await?;
    }
    Ok(())
}

async fn backed_up_keys(
    snapshot: &Snapshot,
    (user, version): (&UserId, u64),
    out: &Lines,
) -> Result<(), ExportError> {
    let mut scan = Scan::prefix(version).limit(STEP);
    loop {
        let rows = snapshot.scan(&BACKED_UP_KEYS, user, scan).await?;
        let Some(((_, room, session), _)) = rows.last() else { return Ok(()) };
        scan = Scan::prefix(version).after((version, room, session)).limit(STEP);
        for ((_, room, session), key) in &rows {
            let data = json!({
                "version": version.to_string(),
                "room_id": room,
                "session_id": session,
                "first_message_index": key.first_message_index,
                "forwarded_count": key.forwarded_count,
                "is_verified": key.is_verified,
                "session_data": parsed(&key.session_data),
            });
            out.put("backed_up_key", data).await?;
        }
    }
}

/// What the user has to do with a room, and what they sent there.
async fn room_of(
    rooms: &Rooms,
    (snapshot, viewer): (&Snapshot, &Viewer),
    (room, row): (&RoomId, UserRoom),
    out: &Lines,
) -> Result<(), ExportError> {
    let shown: Vec<Value> = row.stripped.iter().map(|event| parsed(event)).collect();
    let data = json!({
        "room_id": room,
        "membership": row.membership,
        "forgotten": row.forgotten,
        "shown": shown,
    });
    out.put("room", data).await?;
    let receipts = snapshot.scan(&RECEIPTS, room, Scan::prefix(&viewer.user)).await?;
    for ((_, kind, thread), receipt) in receipts {
        let data = json!({
            "room_id": room,
            "private": ReceiptKind::from_id(kind) == Some(ReceiptKind::Private),
            "thread": thread,
            "event_id": receipt.event_id,
            "at": receipt.ts,
        });
        out.put("receipt", data).await?;
    }
    let delivered = snapshot.scan(&DELIVERED, viewer.user.as_str(), Scan::prefix(room)).await?;
    for ((_, recipient, reach), receipt) in delivered {
        let data = json!({
            "room_id": room,
            "user_id": recipient,
            "to_device": Reach::from_id(reach) == Some(Reach::Device),
            "event_id": receipt.event_id,
            "at": receipt.ts,
        });
        out.put("delivery", data).await?;
    }
    let view = RoomView::open_as(rooms, snapshot, room, viewer, Some(row)).await?;
    match view {
        Some(view) => events(&view, out).await,
        None => Ok(()),
    }
}

/// The events of the room that the user sent, as clients see them, redacted ones redacted.
async fn events(view: &RoomView<'_>, out: &Lines) -> Result<(), ExportError> {
    let mut from = (i64::MIN, i32::MIN);
    loop {
        let scan = Scan::all().from(from).limit(STEP);
        let rows = view.snapshot.scan(&TIMELINE, view.room_id, scan).await?;
        let Some(((n, k), _)) = rows.last() else { return Ok(()) };
        from = k.checked_add(1).map_or((*n + 1, i32::MIN), |k| (*n, k));
        let is_last = rows.len() < STEP;
        let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
        let mut own = view.state_events(&numbers).await?;
        own.retain(|seen| seen.event.pdu.sender == view.viewer.user);
        for event in view.render(&own, RoomIdField::Present).await? {
            out.put("event", parsed(event.get())).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
