//! What is new to users of services: messages to their devices, and invitations to rooms that this
//! server is not in.

use std::collections::BTreeMap;

use millrace_store::{
    Read, Snapshot,
    one_writer::view,
    rows::{appservice::Queued, room::UserRoom},
    tables::{TO_DEVICE, USER_ROOMS},
};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};

use super::{FollowError, Follower, News, interest::services_of};

impl Follower<'_> {
    /// Queues what came for a user after `since`.
    pub(super) async fn user(
        &mut self,
        snapshot: &Snapshot,
        user: &UserId,
        since: u64,
        news: &mut Vec<News>,
    ) -> Result<(), FollowError> {
        if !self.is_local(user) {
            return Ok(());
        }
        let services = services_of(&self.registry, user);
        let listening: Vec<usize> =
            services.into_iter().filter(|at| self.is_listening(*at)).collect();
        if listening.is_empty() {
            return Ok(());
        }
        let changes = snapshot.changes(user, &view(since), usize::MAX).await?;
        let (mut messages, mut rooms) = (BTreeMap::new(), BTreeMap::new());
        for change in &changes {
            let seq = change.position.seq;
            if change.table == TO_DEVICE.info().id {
                messages.insert(TO_DEVICE.decode_key(&change.key)?, seq);
            } else if change.table == USER_ROOMS.info().id {
                rooms.insert(USER_ROOMS.decode_key(&change.key)?, seq);
            }
        }
        self.messages(snapshot, (user, &listening), messages, news).await?;
        self.outside(snapshot, (user, &listening), rooms, news).await
    }

    /// Messages to devices of users that a service keeps. Of others' devices, which have clients of
    /// their own, no service is told.
    async fn messages(
        &self,
        snapshot: &Snapshot,
        (user, services): (&UserId, &[usize]),
        messages: BTreeMap<(ruma::OwnedDeviceId, u64), u64>,
        news: &mut Vec<News>,
    ) -> Result<(), FollowError> {
        let told = services.iter().filter(|at| {
            let service = &self.registry.all()[**at];
            service.told.to_device() && service.keeps_user(user)
        });
        let told: Vec<usize> = told.copied().collect();
        if told.is_empty() || messages.is_empty() {
            return Ok(());
        }
        // Those that were delivered and deleted have changed too.
        let there = snapshot.get_many(&TO_DEVICE, user, messages.keys()).await?;
        for (((device, n), seq), row) in messages.into_iter().zip(there) {
            if row.is_none() {
                continue;
            }
            for service in &told {
                let (user, device) = (user.to_owned(), device.clone());
                let what = Queued::ToDevice { user, device, n };
                news.push(News { seq, service: *service, what });
            }
        }
        Ok(())
    }

    /// How it goes on with rooms that only other servers are in.
    async fn outside(
        &self,
        snapshot: &Snapshot,
        (user, services): (&UserId, &[usize]),
        rooms: BTreeMap<OwnedRoomId, u64>,
        news: &mut Vec<News>,
    ) -> Result<(), FollowError> {
        for (room, seq) in rooms {
            let Some(row) = snapshot.get(&USER_ROOMS, user, &room).await? else { continue };
            // Where there is an event here, the room tells of it.
            if row.event != 0 {
                continue;
            }
            let Some(event) = self.outside_event(&room, user, &row) else { continue };
            for service in services {
                let what = Queued::Outside(event.clone());
                news.push(News { seq, service: *service, what });
            }
        }
        Ok(())
    }

    /// The user's member event, as far as it is known, with the rest of what is shown of the room.
    fn outside_event(&self, room: &RoomId, user: &UserId, row: &UserRoom) -> Option<String> {
        let shown: Vec<Value> =
            row.stripped.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        let own = |event: &&Value| {
            event["type"] == "m.room.member" && event["state_key"] == user.as_str()
        };
        let mut event = shown.iter().rfind(own)?.clone();
        let env = &self.services.rooms.env;
        event["room_id"] = json!(room);
        // The event itself is not kept, so its ID is one of ours.
        if event.get("event_id").is_none() {
            event["event_id"] = json!(format!("${}", env.random_text(43)));
        }
        if event.get("origin_server_ts").is_none() {
            event["origin_server_ts"] = json!(env.now());
        }
        event["unsigned"] = json!({ "invite_room_state": shown });
        Some(event.to_string())
    }
}
