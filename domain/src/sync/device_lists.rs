//! Whose devices changed, and whom the user shares no room with any more (spec: Client-Server API,
//! Tracking the device list for a user).
//!
//! A change of devices is a row in one log. Who shares a room with its user is woken by the room, and
//! looks into the log only while a room of theirs has news: so a quiet user pays nothing for others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_model::SyncToken;
use millrace_store::{
    PartitionId, Read, Scan,
    rows::room::{Member, RoomHead},
    tables::{CURRENT_STATE, DEVICE_LIST, DEVICE_LISTS, MEMBERS},
};
use ruma::{
    OwnedUserId, RoomId, UserId, api::client::filter::FilterDefinition,
    events::room::member::MembershipState,
};
use serde_json::json;

use super::{
    Step, SyncError, SyncFilter, SyncRequest, Syncs,
    joined::{self, Shift, Told},
    user::News,
};
use crate::{json::Object, rooms::membership_of};

/// So many changes of the log are looked at one by one; beyond, all of its users are.
const CHANGES_MAX: usize = 10_000;
/// So many users are looked up in a room one by one; beyond, its members are read.
const LOOKED_UP_MAX: usize = 500;
/// The members of a room without encryption are told where they are not more than so many.
const UNENCRYPTED_MEMBERS_MAX: u64 = 1_000;
/// The members of a room are told up to so many.
const MEMBERS_MAX: usize = 200_000;
/// Of a room that the user left, so many members are looked at.
const LEFT_BEHIND_MAX: usize = 1_000;

/// Whose devices a client has to look at again, and whose it need not follow any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Users whose devices or keys changed, or who are new to a room of the user's.
    pub changed: BTreeSet<OwnedUserId>,
    /// Users who share no room with the user any more.
    pub left: BTreeSet<OwnedUserId>,
}

/// What changed between a token and now (spec: `GET /keys/changes`).
///
/// # Errors
/// Where the store cannot be read.
pub async fn device_lists(
    syncs: &Syncs,
    user: &UserId,
    since: &SyncToken,
) -> Result<DeviceLists, SyncError> {
    let request = SyncRequest {
        user: user.to_owned(),
        device: None,
        since: Some(since.clone()),
        filter: SyncFilter::new(&FilterDefinition::default()),
        full_state: false,
        state_after: false,
        timeout: Duration::ZERO,
    };
    let step = super::begin(syncs, &request, Some(since), None).await?;
    let news = News::read(&step).await?;
    let told = joined::look(&step, &news).await?;
    read(&step, &news, &told).await
}

pub(super) async fn put(
    step: &Step<'_>,
    news: &News,
    told: &Told,
    body: &mut Object<'_>,
) -> Result<(), SyncError> {
    let DeviceLists { changed, left } = read(step, news, told).await?;
    if !changed.is_empty() || !left.is_empty() {
        body.put("device_lists", &json!({ "changed": changed, "left": left }));
    }
    Ok(())
}

pub(super) async fn read(
    step: &Step<'_>,
    news: &News,
    told: &Told,
) -> Result<DeviceLists, SyncError> {
    let mut lists = DeviceLists::default();
    if step.since.is_none() {
        return Ok(lists);
    }
    if news.devices {
        lists.changed.insert(step.request.user.clone());
    }
    lists.changed.extend(news.signed.iter().cloned());
    add_logged(step, &told.candidates, &mut lists.changed).await?;
    let mut gone = BTreeSet::new();
    for shift in &told.shifts {
        add_shift(step, shift, (&mut lists.changed, &mut gone)).await?;
    }
    add_left_behind(step, news, &mut gone).await?;
    for user in gone {
        if user != step.request.user && !shares_room(step, &user).await? {
            lists.changed.remove(&user);
            lists.left.insert(user);
        }
    }
    Ok(lists)
}

/// Adds the users in the log who share one of the rooms that have news: those of a user whose devices
/// changed do.
async fn add_logged(
    step: &Step<'_>,
    candidates: &[usize],
    changed: &mut BTreeSet<OwnedUserId>,
) -> Result<(), SyncError> {
    if candidates.is_empty() {
        return Ok(());
    }
    let mut logged = logged(step).await?;
    logged.remove(&step.request.user);
    for index in candidates {
        if logged.is_empty() {
            break;
        }
        let (room, _) = &step.interest.joined[*index];
        for user in joined_of(step, room, &logged).await? {
            logged.remove(&user);
            changed.insert(user);
        }
    }
    Ok(())
}

/// The users in the log since the token.
async fn logged(step: &Step<'_>) -> Result<BTreeSet<OwnedUserId>, SyncError> {
    let (store, since) = (&step.syncs.rooms.env.store, step.since_view());
    let partition = PartitionId::of::<String>(&DEVICE_LISTS);
    if store.news(&[partition], &since).is_empty() {
        return Ok(BTreeSet::new());
    }
    let changes = step.snapshot.changes::<String>(DEVICE_LISTS, &since, CHANGES_MAX).await?;
    if changes.len() >= CHANGES_MAX {
        let rows = step.snapshot.scan_stamped(&DEVICE_LIST, DEVICE_LISTS, Scan::all()).await?;
        let new = rows.into_iter().filter(|(_, position, ())| !since.covers(*position));
        return Ok(new.map(|(user, _, ())| user).collect());
    }
    let of_log = changes.iter().filter(|change| change.table == DEVICE_LIST.info().id);
    Ok(of_log.map(|change| DEVICE_LIST.decode_key(&change.key)).collect::<Result<_, _>>()?)
}

/// Which of some users are in a room.
async fn joined_of(
    step: &Step<'_>,
    room: &RoomId,
    users: &BTreeSet<OwnedUserId>,
) -> Result<Vec<OwnedUserId>, SyncError> {
    if users.len() > LOOKED_UP_MAX {
        let members = members(step, room, MEMBERS_MAX).await?;
        return Ok(members.into_iter().filter(|user| users.contains(user)).collect());
    }
    let rows = step.snapshot.get_many(&MEMBERS, room, users.iter()).await?;
    let rows = users.iter().zip(rows);
    Ok(rows.filter(|(_, row)| is_joined(row.as_ref())).map(|(user, _)| user.clone()).collect())
}

/// Adds who came to a room and who went, as its state shows it, whether or not the client asked for
/// the events.
async fn add_shift(
    step: &Step<'_>,
    shift: &Shift,
    (changed, gone): (&mut BTreeSet<OwnedUserId>, &mut BTreeSet<OwnedUserId>),
) -> Result<(), SyncError> {
    let Shift { room, head, old: Some(old) } = shift else {
        return add_all(step, &shift.room, &shift.head, changed).await;
    };
    let states = &step.syncs.rooms.states;
    let differences = states.diff(&step.snapshot, room, *old, head.root).await?;
    let mut users: BTreeMap<OwnedUserId, Option<u64>> = BTreeMap::new();
    for difference in &differences {
        match &*difference.key.event_type {
            "m.room.encryption" if difference.old.is_none() => {
                return add_all(step, room, head, changed).await;
            }
            "m.room.member" => {
                let user = UserId::parse(&*difference.key.state_key);
                users.extend(user.ok().map(|user| (user, difference.old)));
            }
            _ => {}
        }
    }
    let were = were_joined(step, (room, head), &users).await?;
    let now = step.snapshot.get_many(&MEMBERS, room, users.keys()).await?;
    for (user, row) in users.keys().zip(now) {
        match (were.contains(user), is_joined(row.as_ref())) {
            (false, true) => changed.insert(user.clone()),
            (true, false) => gone.insert(user.clone()),
            (false, false) | (true, true) => false,
        };
    }
    Ok(())
}

/// Which users were joined by the member events that they had.
async fn were_joined(
    step: &Step<'_>,
    (room, head): (&RoomId, &RoomHead),
    users: &BTreeMap<OwnedUserId, Option<u64>>,
) -> Result<BTreeSet<OwnedUserId>, SyncError> {
    let had = users.iter().filter_map(|(user, number)| Some((user, (*number)?)));
    let (users, numbers): (Vec<_>, Vec<_>) = had.unzip();
    let events = &step.syncs.rooms.events;
    let events = events.load(&step.snapshot, room, &head.version, &numbers).await?;
    let joined = users.into_iter().zip(events);
    let joined = joined.filter(|(_, event)| {
        membership_of(&event.pdu).is_some_and(|membership| membership == MembershipState::Join)
    });
    Ok(joined.map(|(user, _)| user.clone()).collect())
}

/// Adds all members of a room that is new to the client, or newly encrypted. Nobody's keys are needed
/// in a large room without encryption.
async fn add_all(
    step: &Step<'_>,
    room: &RoomId,
    head: &RoomHead,
    changed: &mut BTreeSet<OwnedUserId>,
) -> Result<(), SyncError> {
    if head.joined > UNENCRYPTED_MEMBERS_MAX {
        let key = ("m.room.encryption", "");
        if step.snapshot.get(&CURRENT_STATE, room, key).await?.is_none() {
            return Ok(());
        }
    }
    changed.extend(members(step, room, MEMBERS_MAX).await?);
    Ok(())
}

/// Adds the members of rooms that the user left since the token.
async fn add_left_behind(
    step: &Step<'_>,
    news: &News,
    gone: &mut BTreeSet<OwnedUserId>,
) -> Result<(), SyncError> {
    if news.rooms.is_empty() {
        return Ok(());
    }
    for (room, row) in &step.interest.other {
        let by_this = row.left == Some(row.n) && row.membership != MembershipState::Join;
        if by_this && news.rooms.contains(room) {
            gone.extend(members(step, room, LEFT_BEHIND_MAX).await?);
        }
    }
    Ok(())
}

async fn members(
    step: &Step<'_>,
    room: &RoomId,
    limit: usize,
) -> Result<Vec<OwnedUserId>, SyncError> {
    let rows = step.snapshot.scan(&MEMBERS, room, Scan::all().limit(limit)).await?;
    let joined = rows.into_iter().filter(|(_, row)| is_joined(Some(row)));
    Ok(joined.map(|(user, _)| user).collect())
}

async fn shares_room(step: &Step<'_>, user: &UserId) -> Result<bool, SyncError> {
    for (room, _) in &step.interest.joined {
        if is_joined(step.snapshot.get(&MEMBERS, room, user).await?.as_ref()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_joined(row: Option<&Member>) -> bool {
    row.is_some_and(|row| row.membership == MembershipState::Join)
}
