//! What a server holds of a room, to compare it with what others hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use millrace_domain::Env;
use millrace_store::{
    Read, Scan,
    tables::{CURRENT_STATE, EVENT_HEADERS, EVENTS, ROOM_HEAD},
};
use ruma::{OwnedEventId, RoomId};
use serde_json::Value;

/// A room on one server.
#[derive(Debug, Default)]
pub struct Holding {
    /// The current state.
    pub state: BTreeMap<(String, String), OwnedEventId>,
    /// Events that are part of the room, and what they are.
    pub accepted: BTreeMap<OwnedEventId, String>,
    /// Events that this server alone may have kept back: others need not have heard of them.
    pub kept_back: BTreeSet<OwnedEventId>,
    /// Events that the auth rules refused.
    pub rejected: usize,
    /// Events that were kept back.
    pub soft_failed: usize,
    /// Events with more than one predecessor: where forks met.
    pub merges: usize,
    /// Those of them whose predecessors had different states.
    pub conflicts: usize,
}

/// Reads what a server holds of a room.
pub async fn holding(env: &Env, room: &RoomId) -> millrace_store::Result<Option<Holding>> {
    let snapshot = env.store.snapshot();
    if snapshot.get(&ROOM_HEAD, room, ()).await?.is_none() {
        return Ok(None);
    }
    let mut holding = Holding::default();
    let mut names = BTreeMap::new();
    let headers = snapshot.scan(&EVENT_HEADERS, room, Scan::all()).await?;
    let before: BTreeMap<_, _> = headers
        .iter()
        .map(|(_, header)| (header.event_id.to_string(), (header.before, header.replaces)))
        .collect();
    for (number, header) in headers {
        names.insert(number, header.event_id.clone());
        holding.rejected += usize::from(header.rejected);
        holding.soft_failed += usize::from(header.soft_failed);
        if header.outlier || header.rejected {
            continue;
        }
        let body = snapshot.get(&EVENTS, room, number).await?.unwrap_or_default();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let parents = body["prev_events"].as_array().map(Vec::as_slice).unwrap_or_default();
        holding.merges += usize::from(parents.len() > 1);
        let states: BTreeSet<_> =
            parents.iter().filter_map(|id| before.get(id.as_str()?)).collect();
        holding.conflicts += usize::from(states.len() > 1);
        if header.soft_failed {
            holding.kept_back.insert(header.event_id);
        } else {
            holding.accepted.insert(header.event_id, about(&body));
        }
    }
    for (place, number) in snapshot.scan(&CURRENT_STATE, room, Scan::all()).await? {
        if let Some(name) = names.get(&number) {
            holding.state.insert(place, name.clone());
        }
    }
    Ok(Some(holding))
}

/// What a run had.
#[derive(Debug, Default)]
pub struct Census {
    /// Deeds that were done, and all that were tried.
    pub deeds: (usize, usize),
    /// Crashes and restarts.
    pub crashes: usize,
    /// Cuts of links.
    pub cuts: usize,
    /// Events of all rooms, on the server that has most.
    pub events: usize,
    /// Where forks met.
    pub merges: usize,
    /// Where forks met whose states differed.
    pub conflicts: usize,
    /// Rejected events, all servers together.
    pub rejected: usize,
    /// Soft failures, all servers together.
    pub soft_failed: usize,
    /// Rounds of messages after the storm until all agreed.
    pub rounds: usize,
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, tried) = self.deeds;
        write!(
            f,
            "{done} of {tried} deeds, {} crashes, {} cuts; {} events, {} forks met, {} of them with \
             different states, {} rejected, {} soft-failed; {} rounds",
            self.crashes,
            self.cuts,
            self.events,
            self.merges,
            self.conflicts,
            self.rejected,
            self.soft_failed,
            self.rounds
        )
    }
}

/// What two servers do not agree on; `None` where they do.
pub fn difference(one: &Holding, other: &Holding) -> Option<String> {
    let states: Vec<_> = one
        .state
        .iter()
        .chain(&other.state)
        .filter(|(place, _)| one.state.get(*place) != other.state.get(*place))
        .map(|(place, _)| {
            format!("{place:?}: {:?} / {:?}", one.state.get(place), other.state.get(place))
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let (mine, theirs) = (lacking(other, one), lacking(one, other));
    if states.is_empty() && mine.is_empty() && theirs.is_empty() {
        return None;
    }
    let all = one.accepted.len();
    Some(format!(
        "state {states:#?}, only the first has {mine:#?}, only the second {theirs:#?} ({all} events)"
    ))
}

/// What one server lacks of what another has.
fn lacking<'a>(one: &Holding, other: &'a Holding) -> BTreeMap<&'a OwnedEventId, &'a String> {
    let has = |event| one.accepted.contains_key(event) || one.kept_back.contains(event);
    other.accepted.iter().filter(|(event, _)| !has(*event)).collect()
}

fn about(body: &Value) -> String {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let membership = body["content"]["membership"].as_str().unwrap_or_default();
    let words =
        [&text("type"), &text("sender"), &text("state_key"), membership].map(ToString::to_string);
    format!("{} at depth {}", words.join(" "), body["depth"])
}
