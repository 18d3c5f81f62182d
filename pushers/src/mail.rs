//! Notifications by mail: what was not read for a while, all rooms in one.

use std::collections::BTreeMap;

use millrace_domain::unread::UnreadError;
use millrace_store::Snapshot;
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    Pushers,
    http::places,
    outside::{DigestMail, DigestRoom},
    step::{RoomPush, Sent, To},
};

/// Messages of one room in a mail; the number of others is told.
const MESSAGES_MAX: usize = 10;
/// Characters of one message in a mail.
const MESSAGE_CHARS_MAX: usize = 500;

impl Pushers {
    /// Sends what is unread, once it has waited long enough. `waited`: a moment was set and has come.
    pub(crate) async fn send_mail(
        &self,
        To { snapshot, user, target }: To<'_>,
        pushes: Vec<RoomPush>,
        waited: bool,
    ) -> Result<Sent, UnreadError> {
        if pushes.is_empty() {
            return Ok(Sent::All { badge: None });
        }
        let after = |wait: std::time::Duration| {
            self.now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        };
        let left = places(&pushes);
        if !waited {
            return Ok(Sent::NotBefore { due_ms: after(self.settings.mail_delay), left });
        }
        let rooms = self.digest(snapshot, pushes).await?;
        let (address, app_id) = (target.pushkey.clone(), target.app_id.clone());
        if let Err(error) = self.mails.send(user, DigestMail { address, app_id, rooms }).await {
            tracing::warn!(%error, %user, "a mail about unread messages was not sent");
            return Ok(Sent::Failed { left, badge: None, after: None });
        }
        let due_ms = after(self.settings.mail_interval);
        Ok(Sent::NotBefore { due_ms, left: places::<RoomPush>(&[]) })
    }

    async fn digest(
        &self,
        snapshot: &Snapshot,
        pushes: Vec<RoomPush>,
    ) -> Result<Vec<DigestRoom>, UnreadError> {
        let mut by_room: BTreeMap<OwnedRoomId, Vec<RoomPush>> = BTreeMap::new();
        for push in pushes {
            by_room.entry(push.room.clone()).or_default().push(push);
        }
        let mut rooms = Vec::new();
        for (room, mut pushes) in by_room {
            let more = pushes.len().saturating_sub(MESSAGES_MAX);
            let mut messages = Vec::new();
            let mut name = None;
            for push in pushes.drain(more..) {
                let pdu = &push.pushed.event.pdu;
                let names = self.names(snapshot, &room, &pdu.sender).await?;
                let sender = names.sender.unwrap_or_else(|| pdu.sender.to_string());
                name = Some((names.room.or(names.alias), sender.clone(), pdu.sender.clone()));
                messages.push((sender, text(&push)));
            }
            let Some((name, sender_name, sender)) = name else { continue };
            rooms.push(DigestRoom { name: name.unwrap_or(sender_name), messages, more, sender });
        }
        Ok(rooms)
    }
}

fn text(push: &RoomPush) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        body: Option<String>,
    }
    let body = push.pushed.event.pdu.content_as::<Content>().ok()?.body?;
    Some(body.chars().take(MESSAGE_CHARS_MAX).collect())
}
