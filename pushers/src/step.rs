//! One step of one pusher: what is new and unread is sent, and how that ended is remembered.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::FutureExt;
use millrace_domain::{
    pushers::{self, PusherId},
    unread::{PushedEvent, UnreadError, first_after},
};
use millrace_store::{
    Read, Scan, Snapshot, Tx,
    one_writer::seq,
    rows::user::PusherBehind,
    tables::{PUSHERS, PUSHERS_BEHIND, ROOM_HEAD, TIMELINE, USER_ROOMS},
};
use ruma::{OwnedRoomId, UserId, events::room::member::MembershipState};

use crate::{
    Pushers,
    board::{Begun, Ended, Kind, PusherName, Target, Work},
};

/// With more news than so many, only the newest of each room, and highlights, are sent.
const ONE_BY_ONE_MAX: usize = 10;
/// The most that is sent in one step.
const PUSHES_MAX: usize = 50;
/// The first pause after a failure; it doubles with each.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// An event and its room.
pub(crate) struct RoomPush {
    pub room: OwnedRoomId,
    pub pushed: PushedEvent,
}

/// Whose pusher is worked on, and what there is to see.
#[derive(Clone, Copy)]
pub(crate) struct To<'a> {
    pub snapshot: &'a Snapshot,
    pub user: &'a UserId,
    pub target: &'a Target,
}

/// How sending went.
pub(crate) enum Sent {
    /// All of it; with this badge.
    All { badge: Option<u64> },
    /// Not from here on.
    Failed { left: HashMap<OwnedRoomId, i64>, badge: Option<u64>, after: Option<Duration> },
    /// Mail: no sooner than this.
    NotBefore { due_ms: u64, left: HashMap<OwnedRoomId, i64> },
    /// The key is dead.
    Rejected,
}

impl Pushers {
    /// Works on a pusher once.
    pub(crate) async fn work(self: Arc<Self>, begun: Begun) {
        let name = begun.name.clone();
        let ended = match self.step(&begun).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, user = %name.0, "a pusher cannot be worked on");
                let failures = begun.failures + 1;
                let due_ms = self.now_ms() + self.pause(failures, None);
                Ended::Later { left: begun.work, badge: begun.badge, failures, due_ms }
            }
        };
        if let Err(error) = self.write(&name, begun.written, &ended).await {
            tracing::warn!(%error, "how far a pusher got could not be written");
        }
        self.board.lock().end(&name, ended);
    }

    async fn step(&self, begun: &Begun) -> Result<Ended, UnreadError> {
        let Begun { name: (user, _), target, work, badge, failures, written, got } = begun;
        let snapshot = self.rooms.env.store.snapshot();
        let reached = seq(&snapshot);
        let to = To { snapshot: &snapshot, user, target };
        let pushes = self.gather(to, work, *got).await?;
        let sent = match &target.kind {
            Kind::Http { url } => self.send_http(to, url, (pushes, work.read), *badge).await?,
            Kind::Email => self.send_mail(to, pushes, *written).await?,
        };
        Ok(match sent {
            Sent::All { badge } => Ended::Done { badge, got: reached },
            Sent::Failed { left, badge, after } => {
                let failures = failures + 1;
                let due_ms = self.now_ms() + self.pause(failures, after);
                let since = before(&snapshot, &left, reached).await?;
                let left = Work { rooms: left, all_rooms: false, since, ..work.clone() };
                Ended::Later { left, badge, failures, due_ms }
            }
            Sent::NotBefore { due_ms, left } => {
                let since = before(&snapshot, &left, reached).await?;
                let left = Work { rooms: left, since, ..Work::default() };
                Ended::Later { left, badge: None, failures: 0, due_ms }
            }
            Sent::Rejected => {
                self.remove(user, target).await?;
                Ended::Removed
            }
        })
    }

    /// What is to be sent, the oldest first.
    async fn gather(
        &self,
        To { snapshot, user, .. }: To<'_>,
        work: &Work,
        got: u64,
    ) -> Result<Vec<RoomPush>, UnreadError> {
        let mut rooms = Vec::new();
        if !work.all_rooms {
            for (room, first) in &work.rooms {
                // A step sees more than the follower has, who comes with it again.
                let first = if work.since < got {
                    first_after(snapshot, room, got).await?.map(|after| after.max(*first))
                } else {
                    Some(*first)
                };
                rooms.extend(first.map(|first| (room.clone(), first)));
            }
        } else {
            for (room, row) in snapshot.scan(&USER_ROOMS, user, Scan::all()).await? {
                if matches!(row.membership, MembershipState::Join | MembershipState::Invite)
                    && let Some(first) = first_after(snapshot, &room, work.since).await?
                {
                    rooms.push((room, first));
                }
            }
        }
        let expire = u64::try_from(self.settings.expire.as_millis()).unwrap_or(u64::MAX);
        let oldest = self.now_ms().saturating_sub(expire).max(work.not_before_ms);
        let mut pushes = Vec::new();
        for (room, first) in rooms {
            let Some(head) = snapshot.get(&ROOM_HEAD, &room, ()).await? else { continue };
            let of_room = (&*room, &head, first);
            let found = self.unreads.pushed(&self.rooms, snapshot, user, of_room).await?;
            let fresh = found.into_iter().filter(|push| {
                let sent: u64 = push.event.pdu.origin_server_ts.get().into();
                sent >= oldest
            });
            pushes.extend(fresh.map(|pushed| RoomPush { room: room.clone(), pushed }));
        }
        pushes.sort_by_key(|push| push.pushed.event.number);
        Ok(pushes)
    }

    /// How long to wait after so many failures, in milliseconds.
    fn pause(&self, failures: u32, asked: Option<Duration>) -> u64 {
        let doubled = RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let mut chance = [0];
        self.rooms.env.random.fill(&mut chance);
        // Between three quarters and all of it, so that not all come back at once.
        let doubled =
            doubled.min(self.settings.retry_max).mul_f64(1.0 - f64::from(chance[0]) / 1024.0);
        let asked = asked.unwrap_or_default().min(self.settings.retry_max);
        u64::try_from(doubled.max(asked).as_millis()).unwrap_or(u64::MAX)
    }

    /// Removes a pusher whose key is dead, unless it was set anew meanwhile.
    async fn remove(&self, user: &UserId, target: &Target) -> millrace_store::Result<()> {
        let (app_id, pushkey) = (target.app_id.clone(), target.pushkey.clone());
        let key = (&app_id, &pushkey);
        let row = self.rooms.env.store.snapshot().get(&PUSHERS, user, key).await?;
        if row.is_some_and(|row| row.set_ms == target.set_ms) {
            tracing::info!(%user, app_id, "a gateway rejected a pusher's key");
            let id = PusherId { app_id, pushkey };
            if let Err(error) = pushers::remove(&self.rooms.env, user, &id).await {
                tracing::warn!(%error, "a rejected pusher could not be removed");
            }
        }
        Ok(())
    }

    /// Remembers what must outlive the process.
    async fn write(
        &self,
        (user, key): &PusherName,
        written: bool,
        ended: &Ended,
    ) -> millrace_store::Result<()> {
        let row = match ended {
            Ended::Later { left, failures, due_ms, .. } => {
                Some(PusherBehind { since: left.since, failures: *failures, due_ms: *due_ms })
            }
            Ended::Done { .. } | Ended::Removed if written => None,
            Ended::Done { .. } | Ended::Removed => return Ok(()),
        };
        let row = &row;
        let write = |tx: Tx| {
            async move {
                let exists = tx.get(&PUSHERS, user, key).await?.is_some();
                match row {
                    Some(row) if exists => tx.put(&PUSHERS_BEHIND, user, key, row),
                    Some(_) | None => tx.delete(&PUSHERS_BEHIND, user, key),
                }
                Ok(())
            }
            .boxed()
        };
        self.rooms.env.store.transact(write).await
    }
}

/// The commit before the first of what is left of all that came up to the commit `reached`. What is older
/// was sent, or never will be; so a pusher that fails for long falls behind no further than that.
async fn before(
    snapshot: &Snapshot,
    left: &HashMap<OwnedRoomId, i64>,
    reached: u64,
) -> millrace_store::Result<u64> {
    let mut before = reached;
    for (room, first) in left {
        if let Some((position, _)) = snapshot.get_stamped(&TIMELINE, room, (*first, 0_i32)).await? {
            before = before.min(position.seq.saturating_sub(1));
        }
    }
    Ok(before)
}

/// Leaves out what the newest of its room, and the badge, say as well.
pub(crate) fn coalesce(pushes: Vec<RoomPush>) -> Vec<RoomPush> {
    if pushes.len() <= ONE_BY_ONE_MAX {
        return pushes;
    }
    let mut newest = HashMap::new();
    for push in &pushes {
        newest.insert(push.room.clone(), push.pushed.n);
    }
    let kept = |push: &RoomPush| push.pushed.highlight || newest[&push.room] == push.pushed.n;
    let mut kept: Vec<RoomPush> = pushes.into_iter().filter(kept).collect();
    kept.split_off(kept.len().saturating_sub(PUSHES_MAX))
}
