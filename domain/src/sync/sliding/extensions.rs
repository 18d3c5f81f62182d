//! What a response has beside rooms.

use millrace_model::filter::EventFilter;
use serde_json::json;

use super::{
    InSight,
    connections::{Shown, Telling, Told},
    lists::Wanted,
    request::{OfRooms, SlidingRequest},
    room, threads,
};
use crate::{
    json::{Object, push_array},
    sync::{
        Step, SyncError, device_lists,
        ephemeral::{self, Content},
        joined::{self, RoomNews},
        one_time_keys,
        user::{self, News},
    },
};

/// The extensions of a response, after its rooms.
pub(super) struct Extended<'a, 's> {
    pub step: &'a Step<'s>,
    pub request: &'a SlidingRequest,
    pub news: &'a News,
    /// The rooms that are wanted.
    pub rooms: Vec<InSight<'a>>,
}

impl<'a> Extended<'a, '_> {
    /// Adds the extensions that are wanted. Returns whether they tell anything.
    pub async fn put(
        &self,
        telling: &mut Telling,
        body: &mut Object<'_>,
    ) -> Result<bool, SyncError> {
        let wanted = &self.request.extensions;
        let mut tells = false;
        if wanted.to_device.as_ref().is_some_and(|one| one.enabled) {
            tells |= self.put_messages(body);
        }
        if wanted.e2ee.as_ref().is_some_and(|one| one.enabled) {
            tells |= self.put_devices(body).await?;
        }
        tells |= self.put_account_data(switched_on(&wanted.account_data), telling, body).await?;
        tells |= self.put_receipts(switched_on(&wanted.receipts), telling, body).await?;
        tells |= self.put_typing(switched_on(&wanted.typing), telling, body);
        if let Some(one) = wanted.thread_subscriptions.as_ref().filter(|one| one.enabled) {
            tells |= threads::put((self.step, self.news), one.limit, body).await?;
        }
        Ok(tells)
    }

    fn put_messages(&self, body: &mut Object<'_>) -> bool {
        let limit = self.request.extensions.to_device.as_ref().and_then(|one| one.limit);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let messages = &self.step.messages;
        let messages = &messages[..messages.len().min(limit.max(1))];
        let seen = messages.last().map(|message| message.n).or(self.request.messages_seen);
        let mut object = body.object("to_device");
        object.put_str("next_batch", &seen.unwrap_or(0).to_string());
        let events = messages.iter().map(|waiting| user::to_device_event(&waiting.message));
        push_array(object.field("events"), &events.collect::<Vec<_>>());
        object.end();
        !messages.is_empty()
    }

    async fn put_devices(&self, body: &mut Object<'_>) -> Result<bool, SyncError> {
        let mut object = body.object("e2ee");
        let shifts = joined::look(self.step, self.news).await?;
        let lists = device_lists::read(self.step, self.news, &shifts).await?;
        let tells = !lists.changed.is_empty() || !lists.left.is_empty();
        if tells {
            let lists = json!({ "changed": lists.changed, "left": lists.left });
            object.put("device_lists", &lists);
        }
        one_time_keys::put(self.step, &mut object).await?;
        object.end();
        Ok(tells)
    }

    async fn put_account_data(
        &self,
        of_rooms: Option<&OfRooms>,
        telling: &mut Telling,
        body: &mut Object<'_>,
    ) -> Result<bool, SyncError> {
        let step = self.step;
        let all = EventFilter::default();
        let global = match of_rooms {
            None => Vec::new(),
            // Then all of it is news.
            Some(_) if step.since.is_none() => self.news.global_account_data(&all),
            Some(_) if telling.has_account_data() => self.news.global_account_data(&all),
            Some(_) => {
                let mut whole = News::default();
                whole.add_all_account_data(&step.snapshot, &step.request.user).await?;
                whole.global_account_data(&all)
            }
        };
        telling.tell_account_data(of_rooms.is_some());
        let mut object = body.object("account_data");
        if !global.is_empty() {
            push_array(object.field("global"), &global);
        }
        let mut rooms = object.object("rooms");
        for (in_sight, is_wanted) in self.rooms_of(of_rooms) {
            let room = in_sight.wanted.entry.room;
            let Some(told) = telling.of(room) else { continue };
            if is_wanted {
                let whole = !told.account_data || in_sight.is_new;
                let events = user::room_account_data(step, room, self.news, whole).await?;
                if !events.is_empty() {
                    push_array(rooms.field(room.as_str()), &events);
                }
            }
            if told.account_data != is_wanted {
                let told = Told { account_data: is_wanted, ..told.clone() };
                telling.tell(room, told);
            }
        }
        rooms.end_unless_empty();
        let tells = !object.is_empty();
        object.end_unless_empty();
        Ok(tells)
    }

    async fn put_receipts(
        &self,
        of_rooms: Option<&OfRooms>,
        telling: &mut Telling,
        body: &mut Object<'_>,
    ) -> Result<bool, SyncError> {
        let mut object = body.object("receipts");
        let mut rooms = object.object("rooms");
        for (in_sight, is_wanted) in self.rooms_of(of_rooms) {
            let room = in_sight.wanted.entry.room;
            let told = telling.of(room).filter(|told| told.shown == Shown::Room);
            let Some(told) = told else { continue };
            if is_wanted {
                let content = self.receipts(in_sight, !told.receipts).await?;
                if !content.is_empty() {
                    let event = ephemeral::event("m.receipt", &json!(content));
                    rooms.field(room.as_str()).push_str(&event);
                }
            }
            if told.receipts != is_wanted {
                let told = Told { receipts: is_wanted, ..told.clone() };
                telling.tell(room, told);
            }
        }
        rooms.end_unless_empty();
        let tells = !object.is_empty();
        object.end_unless_empty();
        Ok(tells)
    }

    /// The receipts of a room that are new; of who was told of none, those of the events that they
    /// see, and their own.
    async fn receipts(&self, in_sight: &InSight<'_>, whole: bool) -> Result<Content, SyncError> {
        let (step, room) = (self.step, in_sight.wanted.entry.room);
        let mut content = Content::new();
        if !whole {
            if let Some(news) = &in_sight.news {
                ephemeral::receipts(step, room, news, &mut content).await?;
            }
            return Ok(content);
        }
        ephemeral::receipts(step, room, &RoomNews::whole(), &mut content).await?;
        if content.is_empty() {
            return Ok(content);
        }
        let seen = room::newest_events(step, in_sight.wanted).await?;
        let user = &self.request.user;
        content.retain(|event, kinds| {
            if !seen.contains(event) {
                kinds.values_mut().for_each(|users| users.retain(|other, _| other == user));
                kinds.retain(|_, users| !users.is_empty());
            }
            !kinds.is_empty()
        });
        Ok(content)
    }

    fn put_typing(
        &self,
        of_rooms: Option<&OfRooms>,
        telling: &Telling,
        body: &mut Object<'_>,
    ) -> bool {
        let typing = &self.step.syncs.typing;
        let changed = typing.since(self.step.ephemeral);
        let mut object = body.object("typing");
        let mut rooms = object.object("rooms");
        for (in_sight, is_wanted) in self.rooms_of(of_rooms) {
            let room = in_sight.wanted.entry.room;
            let is_room = telling.of(room).is_some_and(|told| told.shown == Shown::Room);
            if !is_wanted || !is_room {
                continue;
            }
            let is_new = self.step.since.is_none() || in_sight.is_new;
            let users = typing.users(room);
            if (is_new && !users.is_empty()) || (!is_new && changed.contains(room)) {
                let event = ephemeral::event("m.typing", &json!({ "user_ids": users }));
                rooms.field(room.as_str()).push_str(&event);
            }
        }
        rooms.end_unless_empty();
        let tells = !object.is_empty();
        object.end_unless_empty();
        tells
    }

    /// The rooms in sight, each with whether an extension is wanted of it: of none while it is switched
    /// off, and what comes meanwhile is told when it is on again.
    fn rooms_of<'x>(
        &'x self,
        of_rooms: Option<&'x OfRooms>,
    ) -> impl Iterator<Item = (&'x InSight<'a>, bool)> {
        let names: Vec<_> = self.request.lists.keys().collect();
        let is_wanted = move |wanted: &Wanted<'_>| {
            let Some(of_rooms) = of_rooms else { return false };
            let by_list = |place: &usize| match &of_rooms.lists {
                None => true,
                Some(lists) => lists.iter().any(|list| list == "*" || list == names[*place]),
            };
            let room = wanted.entry.room.as_str();
            let by_itself = || match &of_rooms.rooms {
                None => true,
                Some(rooms) => rooms.iter().any(|one| one == "*" || one == room),
            };
            wanted.lists.iter().any(by_list) || (wanted.subscribed && by_itself())
        };
        self.rooms.iter().map(move |in_sight| (in_sight, is_wanted(in_sight.wanted)))
    }
}

fn switched_on(of_rooms: &Option<OfRooms>) -> Option<&OfRooms> {
    of_rooms.as_ref().filter(|one| one.enabled)
}
