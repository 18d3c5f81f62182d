//! Spaces, as other servers tell of them (spec: Server-Server API, Spaces).

use std::{collections::HashMap, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use lru::LruCache;
use millrace_domain::rooms::hierarchy::{Elsewhere, SpaceRoom};
use parking_lot::Mutex;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, RoomId,
    api::federation::space::get_hierarchy::v1 as get_hierarchy, serde::Raw,
};

use crate::Federation;

/// How long what a server has told is good: as long as a user may take to page through a space.
const FRESH_FOR: Duration = Duration::from_secs(300);
/// Spaces that are remembered.
const SPACES_KEPT: usize = 1_000;
/// Servers that are asked for one room.
const SERVERS_ASKED_MAX: usize = 3;
/// Children that one answer may tell of.
const CHILDREN_MAX: usize = 1_000;

/// What servers have told of spaces lately.
pub struct ToldSpaces(Mutex<LruCache<(OwnedRoomId, bool), Told>>);

impl Default for ToldSpaces {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(SPACES_KEPT.try_into().expect("not zero"))))
    }
}

#[derive(Clone)]
struct Told {
    at: MilliSecondsSinceUnixEpoch,
    room: SpaceRoom,
}

/// A walk through spaces that goes on at other servers.
pub struct Walk<'a> {
    federation: &'a Federation,
    /// Rooms without children of their own, of which their parent's server has told already.
    leaves: Mutex<HashMap<OwnedRoomId, SpaceRoom>>,
}

impl<'a> Walk<'a> {
    /// A new walk.
    #[must_use]
    pub fn new(federation: &'a Federation) -> Self {
        Self { federation, leaves: Mutex::default() }
    }

    fn remembered(&self, room: &RoomId, suggested_only: bool) -> Option<SpaceRoom> {
        if let Some(leaf) = self.leaves.lock().get(room) {
            return Some(leaf.clone());
        }
        let key = (room.to_owned(), suggested_only);
        let told = self.federation.spaces.0.lock().get(&key).cloned()?;
        let age = u64::from(self.federation.env.now().0).saturating_sub(told.at.0.into());
        (u128::from(age) < FRESH_FOR.as_millis()).then_some(told.room)
    }

    async fn ask(
        &self,
        room: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Option<SpaceRoom> {
        let us = &self.federation.env.identity.name;
        for server in via.iter().filter(|server| *server != us).take(SERVERS_ASKED_MAX) {
            let mut request = get_hierarchy::Request::new(room.to_owned());
            request.suggested_only = suggested_only;
            match self.federation.peers.ask(server, request).await {
                Ok(answer) if answer.room.summary.room_id == room => {
                    return Some(self.remember(answer, suggested_only));
                }
                Ok(_) => tracing::debug!(%server, %room, "a server told of another room"),
                Err(error) => tracing::debug!(%server, %room, %error, "a space was not told"),
            }
        }
        None
    }

    fn remember(&self, answer: get_hierarchy::Response, suggested_only: bool) -> SpaceRoom {
        let parent = answer.room;
        let children = parent.children_state.into_iter().take(CHILDREN_MAX).map(Raw::into_json);
        let room = SpaceRoom { summary: parent.summary, children: children.collect() };
        let leaves = answer
            .children
            .into_iter()
            .take(CHILDREN_MAX)
            .filter(|leaf| leaf.room_type != Some(ruma::room::RoomType::Space));
        self.leaves.lock().extend(
            leaves.map(|summary| {
                (summary.room_id.clone(), SpaceRoom { summary, children: Vec::new() })
            }),
        );
        let key = (room.summary.room_id.clone(), suggested_only);
        let told = Told { at: self.federation.env.now(), room: room.clone() };
        self.federation.spaces.0.lock().put(key, told);
        room
    }
}

impl Elsewhere for Walk<'_> {
    fn room<'a>(
        &'a self,
        room: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> BoxFuture<'a, Option<SpaceRoom>> {
        async move {
            match self.remembered(room, suggested_only) {
                Some(room) => Some(room),
                None => self.ask(room, via, suggested_only).await,
            }
        }
        .boxed()
    }
}
