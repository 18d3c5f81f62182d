//! Staging the state of a room that is taken over: the tree and the flat rows.

use std::collections::HashMap;

use futures::FutureExt;
use millrace_model::Pdu;
use millrace_store::{
    Read, Scan, Tx,
    rows::room::RoomHead,
    state_tree::{Change, Difference, Node, StateKey, StateRoot},
    tables::{CURRENT_STATE, EVENT_HEADERS, EVENT_NUMBERS, MEMBERS, ROOM_SERVERS},
};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, UserId,
    events::room::member::MembershipState, room_version_rules::RoomVersionRules,
};

use super::{ImportError, Omitted, next_head, told_servers};
use crate::rooms::{
    AppendError, Numbers, ReceiveError, RoomTx, Rooms,
    flat::{POLICY, membership_of},
};

/// Rows that one step reads.
const ROWS_PER_STEP: usize = 1000;
/// Flat rows that one commit changes.
const ROWS_PER_COMMIT: usize = 500;
/// Bytes of nodes that one commit writes, about.
const NODE_BYTES_PER_COMMIT: usize = 1 << 20;

const MEMBER: &str = "m.room.member";

/// One state event of those that were told.
#[derive(Debug)]
pub(super) struct Entry {
    pub event_id: OwnedEventId,
    kind: String,
    state_key: String,
    membership: Option<MembershipState>,
}

/// What matters of the state events that were told.
pub(super) fn entries(state: &[Pdu]) -> Vec<Entry> {
    let entry = |pdu: &Pdu| {
        let kind = pdu.kind.to_string();
        Some(Entry {
            event_id: pdu.event_id.clone(),
            state_key: pdu.state_key.as_deref()?.to_owned(),
            membership: (kind == MEMBER).then(|| membership_of(pdu)).flatten(),
            kind,
        })
    };
    state.iter().filter_map(entry).collect()
}

/// What a place of the state is to hold.
pub(super) struct Held {
    pub number: u64,
    membership: Option<MembershipState>,
}

/// What the room is to be before the join.
pub(super) struct Target {
    pub room: OwnedRoomId,
    pub version: RoomVersionId,
    pub rules: &'static RoomVersionRules,
    pub state: HashMap<(String, String), Held>,
    /// What is told in the place of members, where those are not told.
    pub omitted: Option<Omitted>,
}

impl Target {
    /// The state that was told, as far as it was not rejected.
    pub async fn load(
        rooms: &Rooms,
        (room, version): (&RoomId, &RoomVersionId),
        (entries, omitted): (&[Entry], Option<&Omitted>),
    ) -> Result<Self, ImportError> {
        let rules =
            (rooms.env.rules)(version).ok_or_else(|| ReceiveError::Version(version.clone()))?;
        let snapshot = rooms.env.store.snapshot();
        let mut state = HashMap::with_capacity(entries.len());
        for step in entries.chunks(ROWS_PER_STEP) {
            let ids = step.iter().map(|entry| &*entry.event_id);
            let numbers = snapshot.get_many(&EVENT_NUMBERS, room, ids).await?;
            let stored: Vec<u64> = numbers.iter().flatten().copied().collect();
            let headers = snapshot.get_many(&EVENT_HEADERS, room, stored).await?;
            let mut headers = headers.into_iter();
            for (entry, number) in step.iter().zip(numbers) {
                let Some(number) = number else { continue };
                if headers.next().flatten().is_none_or(|header| header.rejected) {
                    continue;
                }
                let place = (entry.kind.clone(), entry.state_key.clone());
                state.insert(place, Held { number, membership: entry.membership.clone() });
            }
        }
        let (room, version) = (room.to_owned(), version.clone());
        if !state.contains_key(&("m.room.create".to_owned(), String::new())) {
            return Err(ImportError::NoCreate(room));
        }
        let omitted = omitted.cloned();
        Ok(Self { room, version, rules, state, omitted })
    }

    fn changes(&self) -> Vec<Change<'_>> {
        self.state
            .iter()
            .map(|((kind, key), held)| Change {
                event_type: kind,
                state_key: key,
                event: Some(held.number),
            })
            .collect()
    }

    fn count(&self, membership: &MembershipState, counts: impl Fn(&UserId) -> bool) -> u64 {
        let members =
            self.state.iter().filter(|(_, held)| held.membership.as_ref() == Some(membership));
        let users = members.filter_map(|((_, key), _)| UserId::parse(key).ok());
        users.filter(|user| counts(user)).count() as u64
    }
}

/// What has been staged.
pub(super) struct Staged {
    /// The head that was found.
    pub old: Option<RoomHead>,
    /// The head to go on from, as of before the join.
    pub head: RoomHead,
    /// The state before the join.
    pub root: StateRoot,
    /// What changes for users of ours, which is not to be seen before the head is.
    pub ours: Vec<Difference>,
}

/// Writes the tree and the flat rows of the target, but for what our users would see of it.
pub(super) async fn stage(
    rooms: &Rooms,
    target: &Target,
    old: Option<RoomHead>,
) -> Result<Staged, ImportError> {
    let root = stage_tree(rooms, target).await?;
    let mut head = next_head(old.as_ref(), target);
    let differences = flat_differences(rooms, target).await?;
    let is_ours = |change: &Difference| {
        let user = UserId::parse(&*change.key.state_key);
        change.key.event_type == MEMBER && user.is_ok_and(|user| rooms.env.is_local(&user))
    };
    let (ours, mut others): (Vec<_>, Vec<_>) = differences.into_iter().partition(is_ours);
    // What is shown to the invited comes before the members.
    others.sort_by_key(|change| change.key.event_type == MEMBER);
    for chunk in others.chunks(ROWS_PER_COMMIT) {
        stage_rows(rooms, target, (&head, root), chunk).await?;
    }
    told_servers::stage(rooms, target, &head).await?;
    head.create = target.state[&("m.room.create".to_owned(), String::new())].number;
    head.root = root;
    let policy = target.state.get(&(POLICY.to_owned(), String::new()));
    head.policy = policy.map(|held| held.number);
    let is_local = |user: &UserId| rooms.env.is_local(user);
    // Ours are counted as their rows are written.
    let before = |membership: &MembershipState| target.count(membership, |user| !is_local(user));
    head.joined = before(&MembershipState::Join);
    head.invited = before(&MembershipState::Invite);
    head.joined_here = 0;
    count_ours(rooms, target, &mut head).await?;
    head.remote_servers = remote_servers(rooms, target).await?;
    Ok(Staged { old, head, root, ours })
}

/// Adds what the rows of our own members say now.
async fn count_ours(
    rooms: &Rooms,
    target: &Target,
    head: &mut RoomHead,
) -> Result<(), ImportError> {
    let snapshot = rooms.env.store.snapshot();
    let mut scan = Scan::all();
    loop {
        let rows = snapshot.scan(&MEMBERS, &target.room, scan.limit(ROWS_PER_STEP)).await?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        let next = Scan::all().after(last);
        for (_, member) in rows.iter().filter(|(user, _)| rooms.env.is_local(user)) {
            let joined = member.membership == MembershipState::Join;
            head.joined += u64::from(joined);
            head.joined_here += u64::from(joined);
            head.invited += u64::from(member.membership == MembershipState::Invite);
        }
        scan = next;
    }
}

async fn remote_servers(rooms: &Rooms, target: &Target) -> Result<u64, ImportError> {
    let snapshot = rooms.env.store.snapshot();
    let rows = snapshot.scan(&ROOM_SERVERS, &target.room, Scan::all()).await?;
    let ours = &rooms.env.identity.name;
    Ok(rows.iter().filter(|(server, row)| server != ours && row.joined > 0).count() as u64)
}

async fn stage_tree(rooms: &Rooms, target: &Target) -> Result<StateRoot, ImportError> {
    let snapshot = rooms.env.store.snapshot();
    let changes = target.changes();
    let applied = rooms.states.changed(&snapshot, &target.room, StateRoot::EMPTY, &changes).await;
    let applied = applied.map_err(AppendError::from)?;
    write_nodes(rooms, &target.room, &applied.nodes).await?;
    Ok(applied.root)
}

/// Writes nodes of states that nobody sees yet, in small commits.
pub(in crate::rooms) async fn write_nodes(
    rooms: &Rooms,
    room: &RoomId,
    nodes: &[Node],
) -> millrace_store::Result<()> {
    let mut rest = nodes;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|node| {
            bytes += node.bytes().len();
            bytes <= NODE_BYTES_PER_COMMIT
        });
        let (chunk, later) = rest.split_at(fits.count().max(1));
        let body = |tx: Tx| {
            async move {
                rooms.states.write(&tx, room, chunk);
                Ok::<_, millrace_store::Error>(())
            }
            .boxed()
        };
        rooms.env.store.transact(body).await?;
        rest = later;
    }
    Ok(())
}

/// How the flat rows that are there, of an earlier stay or an earlier attempt, differ from the
/// target.
async fn flat_differences(rooms: &Rooms, target: &Target) -> Result<Vec<Difference>, ImportError> {
    let snapshot = rooms.env.store.snapshot();
    let mut here: HashMap<(String, String), u64> = HashMap::new();
    let mut scan = Scan::all();
    loop {
        let rows = snapshot.scan(&CURRENT_STATE, &target.room, scan.limit(ROWS_PER_STEP)).await?;
        let Some((last, _)) = rows.last() else { break };
        scan = Scan::all().after((last.0.as_str(), last.1.as_str()));
        here.extend(rows);
    }
    let mut differences = Vec::new();
    for (place, held) in &target.state {
        let old = here.remove(place);
        if old != Some(held.number) {
            differences.push(difference(place, old, Some(held.number)));
        }
    }
    differences.extend(here.iter().map(|(place, old)| difference(place, Some(*old), None)));
    Ok(differences)
}

fn difference((kind, key): &(String, String), old: Option<u64>, new: Option<u64>) -> Difference {
    let key = StateKey { event_type: kind.clone(), state_key: key.clone() };
    Difference { key, old, new }
}

/// Writes flat rows under a head that nobody sees.
async fn stage_rows(
    rooms: &Rooms,
    target: &Target,
    (head, root): (&RoomHead, StateRoot),
    changes: &[Difference],
) -> Result<(), ImportError> {
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let (room, head) = (target.room.clone(), head.clone());
            let mut room = RoomTx::with_head(&tx, rooms, room, head, numbers)?;
            Ok::<_, ImportError>(room.follow(root, changes).await?)
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}
