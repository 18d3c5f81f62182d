//! Sliding sync (MSC4186): a client names windows on its user's rooms, in the order of their last
//! event, and is told what is new in these rooms only.
//!
//! Start at [`sync`]. It reads as `/sync` does, through one snapshot for each attempt. What it has
//! besides is a memory of what each connection was told of each room (`connections`), as rooms come
//! into windows and go.

mod connections;
mod extensions;
mod facts;
mod lists;
mod naming;
mod pos;
mod request;
mod required_state;
mod room;
mod threads;
mod user_facts;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use millrace_model::SyncToken;
use millrace_store::News as PartitionNews;
use ruma::api::client::filter::FilterDefinition;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use self::{
    connections::{Connections, Key, Shown, Told, Until},
    extensions::Extended,
    lists::{Wanted, Windows},
};
pub use self::{
    pos::{InvalidPos, Pos},
    request::{Body, InvalidRequest, SlidingRequest},
    threads::{ThreadChanges, ThreadPage, thread_changes},
};
use super::{
    Step, SyncError, SyncFilter, SyncRequest, Syncs, begin, interest::Interest, joined::RoomNews,
    partitions, user::News,
};
use crate::{deliveries, json::Object, to_device};

/// What sliding syncs remember.
#[derive(Default)]
pub(super) struct Memory {
    connections: Connections,
    facts: facts::Remembered,
    direct: user_facts::RememberedDirect,
    tags: user_facts::RememberedTags,
}

/// Why a sliding sync failed.
#[derive(Debug, thiserror::Error)]
pub enum SlidingError {
    /// The connection is not (or no more) at this position.
    #[error("the position is not known here any more: begin anew, without pos")]
    UnknownPos,
    /// As any sync.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// A room that is wanted, and what was found out about it.
struct InSight<'w> {
    wanted: &'w Wanted<'w>,
    /// Whether it was not wanted by the request before.
    is_new: bool,
    /// What happened in it, where there may be something to tell.
    news: Option<RoomNews>,
}

/// A response in the making.
struct Answer {
    /// A JSON object without the position.
    json: String,
    /// Whether it tells nothing.
    is_empty: bool,
    /// What was seen with it.
    next: SyncToken,
    /// What it tells of the messages of others, where that is noted.
    delivered: Option<deliveries::Telling>,
    interest: Arc<Interest>,
}

/// Answers a sliding sync: at once where there is news or the connection begins, else as soon as there
/// is, else empty after its timeout. `ended` completes when the server is to stop.
///
/// # Errors
/// As [`SlidingError`] says.
pub async fn sync(
    syncs: &Syncs,
    request: &SlidingRequest,
    ended: impl Future<Output = ()>,
) -> Result<String, SlidingError> {
    let deadline = Instant::now() + request.timeout;
    let (key, pos) = (key(request), request.pos.as_ref());
    let number = pos.map(|pos| pos.number);
    if pos.is_some_and(|pos| !is_of_this_run(syncs, &pos.token)) {
        return Err(SlidingError::UnknownPos);
    }
    let connections = &syncs.sliding.connections;
    let mut telling = connections.resume(&key, number).ok_or(SlidingError::UnknownPos)?;
    acknowledge(syncs, request).await?;
    let plain = plain_request(request);
    let mut since = pos.map(|pos| pos.token.clone());
    let at_once = since.is_none() || request.timeout == Duration::ZERO;
    tokio::pin!(ended);
    let mut interest = None;
    let answer = loop {
        // Watch first, then look: what is committed in between is seen by the look.
        let watched = interest.as_deref().map(|interest| partitions(syncs, &plain, interest));
        let watch = watched.map(|partitions| syncs.rooms.env.store.watch(partitions));
        let wanted = (request, &plain, since.as_ref());
        let answer = attempt(syncs, wanted, &mut telling).await?;
        if at_once || !answer.is_empty {
            break answer;
        }
        // As if it had been given and its client had come back.
        since = Some(answer.next.clone());
        let moved = interest.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &answer.interest));
        interest = Some(Arc::clone(&answer.interest));
        let Some(watch) = watch.filter(|_| !moved) else { continue };
        tokio::select! {
            woken = timeout_at(deadline, watch.changed()) => if woken.is_err() { break answer },
            () = &mut ended => break answer,
        }
    };
    let number = connections.give(&key, number, telling);
    let next = Pos { number, token: answer.next };
    if let Some(delivered) = answer.delivered {
        syncs.deliveries.tell(delivered, Some(&request.device), &next.token);
    }
    Ok(with_pos(&answer.json, &next))
}

fn key(request: &SlidingRequest) -> Key {
    ((request.user.clone(), request.device.clone()), request.conn_id.clone())
}

/// Whether a position was given by this run of the process: what connections know is in memory.
fn is_of_this_run(syncs: &Syncs, token: &SyncToken) -> bool {
    let (run, _) = syncs.ephemeral.token();
    token.ephemeral.is_some_and(|(other, _)| other == run)
}

/// What the client shows by coming back: that it has messages.
async fn acknowledge(syncs: &Syncs, request: &SlidingRequest) -> Result<(), SyncError> {
    let SlidingRequest { user, device, .. } = request;
    if let Some(pos) = &request.pos {
        syncs.deliveries.acknowledge(user, Some(device), &pos.token);
    }
    if let Some(seen) = request.messages_seen {
        to_device::acknowledge(&syncs.rooms.env, user, device, seen).await?;
    }
    Ok(())
}

/// What a sliding sync is to the parts that it shares with `/sync`.
fn plain_request(request: &SlidingRequest) -> SyncRequest {
    SyncRequest {
        user: request.user.clone(),
        device: Some(request.device.clone()),
        since: None,
        filter: SyncFilter::new(&FilterDefinition::default()),
        full_state: false,
        state_after: true,
        timeout: request.timeout,
    }
}

fn with_pos(json: &str, pos: &Pos) -> String {
    let mut out = String::with_capacity(json.len() + 100);
    let mut object = Object::begin(&mut out);
    object.put_str("pos", &pos.to_string());
    out.push(',');
    out.push_str(&json[1..]);
    out
}

async fn attempt(
    syncs: &Syncs,
    (request, plain, since): (&SlidingRequest, &SyncRequest, Option<&SyncToken>),
    telling: &mut connections::Telling,
) -> Result<Answer, SyncError> {
    let messages = request.extensions.to_device.as_ref().filter(|wanted| wanted.enabled);
    let seen = messages.map(|_| request.messages_seen.unwrap_or(0));
    let mut step = begin(syncs, plain, since, seen).await?;
    let (mut json, mut is_empty) = (String::new(), true);
    let mut body = Object::begin(&mut json);
    if let Some(txn_id) = &request.txn_id {
        body.put_str("txn_id", txn_id);
    }
    let news = News::read(&step).await?;
    let entries = lists::entries(&step, request, telling).await?;
    let windows = lists::windows(&step, request, &entries).await?;
    put_counts(request, &windows, &mut body);
    let mut rooms = body.object("rooms");
    let in_sight = put_rooms(&step, &news, (&windows.rooms, telling), &mut rooms).await?;
    is_empty &= rooms.is_empty();
    rooms.end();
    let mut extensions = body.object("extensions");
    let extended = Extended { step: &step, request, news: &news, rooms: in_sight };
    is_empty &= !extended.put(telling, &mut extensions).await?;
    extensions.end();
    body.end();
    let shown: BTreeSet<_> = windows.rooms.iter().map(|wanted| wanted.entry.room).collect();
    note_unwanted(&step, &shown, telling);
    let delivered = step.telling.take();
    let (next, interest) = (step.next.clone(), Arc::clone(&step.interest));
    Ok(Answer { json, is_empty, next, delivered, interest })
}

fn put_counts(request: &SlidingRequest, windows: &Windows<'_>, body: &mut Object<'_>) {
    let mut lists = body.object("lists");
    for (name, count) in request.lists.keys().zip(&windows.counts) {
        lists.put(name, &json!({ "count": count }));
    }
    lists.end_unless_empty();
}

/// Adds the rooms that have something to tell; returns all that are wanted, with what was found out.
async fn put_rooms<'w>(
    step: &Step<'_>,
    news: &News,
    (wanted, telling): (&'w [Wanted<'w>], &mut connections::Telling),
    rooms: &mut Object<'_>,
) -> Result<Vec<InSight<'w>>, SyncError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let direct = user_facts::direct(step).await?;
    let with_news = rooms_with_news(step);
    let mut all = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let room = wanted.entry.room;
        let told = telling.of(room);
        let is_new = told.is_none_or(|told| told.until != Until::Now);
        if let Some(told) = told
            && !may_have_news(step, (wanted, told), (&with_news, news))
        {
            if is_new {
                let told = Told { until: Until::Now, ..told.clone() };
                telling.tell(room, told);
            }
            all.push(InSight { wanted, is_new, news: None });
            continue;
        }
        let is_direct = direct.contains(room.as_str());
        match room::put(step, wanted, (told, is_direct), rooms).await? {
            Some((told, news)) => {
                telling.tell(room, told);
                all.push(InSight { wanted, is_new, news: Some(news) });
            }
            None => forget_hidden(step, room, telling),
        }
    }
    Ok(all)
}

/// The joined rooms that have news since the position of the connection, by their places.
fn rooms_with_news(step: &Step<'_>) -> BTreeSet<usize> {
    let store = &step.syncs.rooms.env.store;
    store.news(&step.interest.joined_partitions, &step.since_view()).into_iter().collect()
}

/// Whether there may be something to tell of a room that the client knows.
fn may_have_news(
    step: &Step<'_>,
    (wanted, told): (&Wanted<'_>, &Told),
    (with_news, news): (&BTreeSet<usize>, &News),
) -> bool {
    let shown = match wanted.entry.joined {
        Some(_) => Shown::Room,
        None if wanted.entry.row.was_joined => Shown::Left,
        None => Shown::Stripped,
    };
    let config = &wanted.config;
    let is_asked_more = config.timeline_limit > told.timeline
        || !told.config.required_state.covers(&config.required_state);
    if told.shown != shown || (is_asked_more && shown == Shown::Room) {
        return true;
    }
    if news.rooms.contains(wanted.entry.room) {
        return true;
    }
    match (&told.until, wanted.entry.joined) {
        (Until::Now, Some(place)) => with_news.contains(&place),
        (Until::Now, None) => false,
        (Until::View(view), Some(place)) => {
            let partition = step.interest.joined_partitions[place];
            step.syncs.rooms.env.store.news_of(partition, view) != PartitionNews::None
        }
        (Until::View(_), None) => shown == Shown::Stripped,
    }
}

/// Of a room that is not shown for the time being, what comes is told when it is shown again.
fn forget_hidden(step: &Step<'_>, room: &ruma::RoomId, telling: &mut connections::Telling) {
    let told = telling.of(room).filter(|told| told.until == Until::Now).cloned();
    if let Some(told) = told {
        telling.tell(room, Told { until: Until::View(step.since_view()), ..told });
    }
}

/// Notes up to when the client was told of rooms that it does not want any more.
fn note_unwanted(
    step: &Step<'_>,
    wanted: &BTreeSet<&ruma::OwnedRoomId>,
    telling: &mut connections::Telling,
) {
    let unwanted = telling.current().filter(|(room, _)| !wanted.contains(room));
    let unwanted: Vec<_> = unwanted.map(|(room, _)| room.clone()).collect();
    for room in unwanted {
        forget_hidden(step, &room, telling);
    }
}
