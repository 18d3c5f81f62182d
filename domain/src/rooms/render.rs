//! Events as a client receives them: the shared client form with the viewer's own `unsigned`.

use std::{fmt::Write, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use millrace_model::{
    ClientForm, Pdu,
    client_event::{RoomIdField, federation_form},
};
use millrace_store::rows::room::{EventHeader, EventTransaction};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, events::room::member::MembershipState};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::value::RawValue;

use super::{
    Event,
    view::{ReadError, RoomView, Seen},
};
use crate::{
    accounts::find_deactivation,
    json::{Array, Object},
};

/// In which form a client wants events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As clients commonly do.
    Client(RoomIdField),
    /// As servers exchange them.
    Federation,
}

/// What the `unsigned` of several events refers to, read at once.
struct Referred {
    now: MilliSecondsSinceUnixEpoch,
    /// Redactions, and the state events that others replaced: they may be redacted too.
    events: FxHashMap<u64, (Arc<Event>, Arc<EventHeader>)>,
    /// For each event rendered, its `m.relations`.
    relations: Vec<Option<String>>,
    /// Senders whose accounts were erased, among those of events that the viewer was not there for.
    erased: FxHashSet<OwnedUserId>,
}

impl RoomView<'_> {
    /// The events as the viewer's device receives them, in their order.
    ///
    /// # Errors
    /// Where what an event's `unsigned` refers to cannot be read.
    pub fn render<'s>(
        &'s self,
        seen: &'s [Seen],
        room_id: RoomIdField,
    ) -> BoxFuture<'s, Result<Vec<Box<RawValue>>, ReadError>> {
        self.render_as(seen, Form::Client(room_id))
    }

    /// The events in a given form, as [`RoomView::render`].
    ///
    /// # Errors
    /// As [`RoomView::render`].
    pub fn render_as<'s>(
        &'s self,
        seen: &'s [Seen],
        form: Form,
    ) -> BoxFuture<'s, Result<Vec<Box<RawValue>>, ReadError>> {
        async move {
            let referred = self.refer(seen).await?;
            let mut rendered = Vec::with_capacity(seen.len());
            for one in seen.iter().enumerate() {
                let mut text = String::new();
                self.write(&mut text, one, &referred, form)?;
                rendered.push(RawValue::from_string(text).expect("assembled from valid JSON"));
            }
            Ok(rendered)
        }
        .boxed()
    }

    /// One event, as [`RoomView::render`].
    ///
    /// # Errors
    /// As [`RoomView::render`].
    pub async fn render_one(
        &self,
        seen: &Seen,
        room_id: RoomIdField,
    ) -> Result<Box<RawValue>, ReadError> {
        let mut rendered = self.render(std::slice::from_ref(seen), room_id).await?;
        Ok(rendered.pop().expect("as many as were given"))
    }

    /// Appends the events to `out` as a JSON array, each as [`RoomView::render_as`] has it.
    ///
    /// # Errors
    /// As [`RoomView::render`]; then `out` is not to be used.
    pub(crate) async fn write_array(
        &self,
        out: &mut String,
        seen: &[Seen],
        form: Form,
    ) -> Result<(), ReadError> {
        let referred = self.refer(seen).await?;
        let mut array = Array::begin(out);
        for one in seen.iter().enumerate() {
            self.write(array.item(), one, &referred, form)?;
        }
        array.end();
        Ok(())
    }

    fn write(
        &self,
        out: &mut String,
        (place, seen): (usize, &Seen),
        referred: &Referred,
        form: Form,
    ) -> Result<(), ReadError> {
        let (pdu, client) = self.shown(seen, &referred.erased)?;
        match form {
            Form::Client(room_id) => {
                client.write_open(out, room_id);
                out.push_str(",\"unsigned\":");
                self.write_unsigned(out, (place, seen), referred)?;
                out.push('}');
            }
            Form::Federation => {
                let mut unsigned = String::new();
                self.write_unsigned(&mut unsigned, (place, seen), referred)?;
                out.push_str(federation_form(pdu, &unsigned).get());
            }
        }
        Ok(())
    }

    /// What of an event is shown: all of it, or what redaction leaves.
    fn shown<'e>(
        &self,
        seen: &'e Seen,
        erased: &FxHashSet<OwnedUserId>,
    ) -> Result<(&'e Pdu, &'e ClientForm), ReadError> {
        if is_erased(seen, erased) || seen.header.redacted_by.is_some() {
            let redacted = seen.event.redacted(self.rules)?;
            return Ok((&redacted.pdu, &redacted.client));
        }
        Ok((&seen.event.pdu, &seen.event.client))
    }

    /// Senders of these events who gave up their account and wanted their content erased: "users
    /// which join the room after the erasure request are served redacted copies"
    /// (`POST /account/deactivate`).
    async fn erased_senders(&self, seen: &[Seen]) -> Result<FxHashSet<OwnedUserId>, ReadError> {
        let absent = seen.iter().filter(|seen| was_absent(seen));
        let senders: FxHashSet<_> = absent.map(|seen| &seen.event.pdu.sender).collect();
        let mut erased = FxHashSet::default();
        for sender in senders {
            let deactivation = find_deactivation(self.snapshot, sender).await?;
            if deactivation.is_some_and(|deactivation| deactivation.erase) {
                erased.insert(sender.clone());
            }
        }
        Ok(erased)
    }

    async fn refer(&self, seen: &[Seen]) -> Result<Referred, ReadError> {
        let numbers = seen.iter().flat_map(|seen| [seen.header.redacted_by, seen.header.replaces]);
        let numbers: Vec<u64> = numbers.flatten().collect();
        let events = self.load(&numbers).await?;
        let sent = seen.iter().filter(|seen| self.is_own(seen)).map(|seen| &*seen.event);
        self.rooms.events.load_transactions(self.snapshot, &self.viewer.user, sent).await?;
        Ok(Referred {
            now: self.rooms.env.now(),
            events: numbers.into_iter().zip(events).collect(),
            relations: self.bundles(seen).await?,
            erased: self.erased_senders(seen).await?,
        })
    }

    /// Whether it is part of the history of the viewer, who sent it.
    fn is_own(&self, seen: &Seen) -> bool {
        let sender = &seen.event.pdu.sender;
        self.viewer.device.is_some() && seen.membership.is_some() && *sender == self.viewer.user
    }

    /// The request by which the viewer's device sent the event.
    fn own_transaction<'e>(&self, seen: &'e Seen) -> Option<&'e EventTransaction> {
        let txn = seen.event.transaction().filter(|_| self.is_own(seen))?;
        (Some(&txn.device) == self.viewer.device.as_ref()).then_some(txn)
    }

    fn write_unsigned(
        &self,
        out: &mut String,
        (place, seen): (usize, &Seen),
        referred: &Referred,
    ) -> Result<(), ReadError> {
        let mut unsigned = Object::begin(out);
        referred.put_age(&mut unsigned, &seen.event);
        if let Some(membership) = &seen.membership {
            unsigned.put_str("membership", membership.as_str());
        }
        if let Some(txn) = self.own_transaction(seen) {
            unsigned.put_str("transaction_id", &txn.id);
        }
        self.put_replaced(&mut unsigned, seen, referred)?;
        let redaction = seen.header.redacted_by.and_then(|number| referred.events.get(&number));
        if let Some((redaction, _)) = redaction {
            let out = unsigned.field("redacted_because");
            redaction.client.write_open(out, RoomIdField::Present);
            out.push_str(",\"unsigned\":");
            let mut unsigned = Object::begin(out);
            referred.put_age(&mut unsigned, redaction);
            unsigned.end();
            out.push('}');
        }
        // What an erased user's event was edited to is erased with it.
        let relations = referred.relations[place].as_ref();
        if let Some(relations) = relations.filter(|_| !is_erased(seen, &referred.erased)) {
            unsigned.field("m.relations").push_str(relations);
        }
        unsigned.end();
        Ok(())
    }

    /// What a state event replaced.
    fn put_replaced(
        &self,
        unsigned: &mut Object<'_>,
        seen: &Seen,
        referred: &Referred,
    ) -> Result<(), ReadError> {
        let Some(number) = seen.header.replaces else { return Ok(()) };
        let Some((event, header)) = referred.events.get(&number) else { return Ok(()) };
        let content = match header.redacted_by {
            Some(_) => event.redacted(self.rules)?.pdu.content.get(),
            None => event.pdu.content.get(),
        };
        unsigned.field("prev_content").push_str(content);
        unsigned.put_str("prev_sender", event.pdu.sender.as_str());
        unsigned.put_str("replaces_state", event.pdu.event_id.as_str());
        Ok(())
    }
}

impl Referred {
    fn put_age(&self, unsigned: &mut Object<'_>, event: &Event) {
        let age = self.now.0.saturating_sub(event.pdu.origin_server_ts.0);
        write!(unsigned.field("age"), "{age}").expect("a text takes everything");
    }
}

/// Whether the viewer was not in the room at the event.
fn was_absent(seen: &Seen) -> bool {
    seen.membership.as_ref().is_some_and(|membership| *membership != MembershipState::Join)
}

fn is_erased(seen: &Seen, erased: &FxHashSet<OwnedUserId>) -> bool {
    was_absent(seen) && erased.contains(&seen.event.pdu.sender)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::{FutureExt, future::ready};
    use millrace_store::{
        Tx,
        rows::account::{Account, Deactivation},
        tables::ACCOUNTS,
    };
    use serde_json::json;

    use crate::rooms::test_room::{TestRoom, user, viewer};

    #[tokio::test]
    async fn an_event_tells_its_age_and_the_viewers_membership_at_it() {
        let room = TestRoom::with_visibility("shared").await;
        let early = room.say("alice", "early").await;
        let join = room.member("bob", "bob", "join").await;
        for (event, membership) in [(&early, "leave"), (&join, "join")] {
            let seen = room.seen_by(&viewer("bob"), event).await.unwrap();
            assert_eq!(seen["unsigned"], json!({"age": 0, "membership": membership}));
        }
        let seen = room.seen_by(&viewer("alice"), &early).await.unwrap();
        assert_eq!(seen["unsigned"]["membership"], "join");
        assert_eq!(seen["room_id"], room.id.as_str());
    }

    #[tokio::test]
    async fn a_state_event_tells_what_it_replaced() {
        let room = TestRoom::with_visibility("shared").await;
        let first = room.set("alice", "m.room.topic", "", json!({"topic": "one"})).await;
        let second = room.set("alice", "m.room.topic", "", json!({"topic": "two"})).await;
        let seen = room.seen_by(&viewer("alice"), &first).await.unwrap();
        assert_eq!(seen["unsigned"].get("prev_content"), None);
        let seen = room.seen_by(&viewer("alice"), &second).await.unwrap();
        assert_eq!(seen["unsigned"]["prev_content"], json!({"topic": "one"}));
        assert_eq!(seen["unsigned"]["replaces_state"], first.as_str());
        assert_eq!(seen["unsigned"]["prev_sender"], user("alice").as_str());
        room.redact("alice", &first).await;
        let seen = room.seen_by(&viewer("alice"), &second).await.unwrap();
        assert_eq!(seen["unsigned"]["prev_content"], json!({}), "redacted meanwhile");
    }

    #[tokio::test]
    async fn a_redacted_event_keeps_no_content_and_says_why() {
        let room = TestRoom::with_visibility("shared").await;
        let secret = room.say("alice", "secret").await;
        let redaction = room.redact("alice", &secret).await;
        let seen = room.seen_by(&viewer("alice"), &secret).await.unwrap();
        assert_eq!(seen["content"], json!({}));
        let because = &seen["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], redaction.as_str());
        assert_eq!(because["redacts"], secret.as_str());
    }

    #[tokio::test]
    async fn a_remembered_header_serves_only_snapshots_with_the_same_redactions_and_relations() {
        let room = TestRoom::with_visibility("shared").await;
        let said = room.say("alice", "secret").await;
        let snapshot = || room.rooms.env.store.snapshot();
        let plain = snapshot();
        room.seen_at(&plain, &viewer("alice"), &said).await.unwrap();
        room.relate("alice", &said, "m.replace").await;
        let edited = snapshot();
        room.say("alice", "something else").await;
        room.redact("alice", &said).await;
        let redacted = snapshot();
        // Readers of each snapshot overtake each other in every order.
        for (first, second) in [(&plain, &redacted), (&redacted, &edited), (&edited, &plain)] {
            for at in [first, second, first] {
                let seen = room.seen_at(at, &viewer("alice"), &said).await.unwrap();
                let is_redacted = at.view() == redacted.view();
                assert_eq!(seen["content"].get("body").is_none(), is_redacted);
                assert_eq!(seen["unsigned"].get("redacted_because").is_some(), is_redacted);
                let is_edited = seen["unsigned"]["m.relations"].get("m.replace").is_some();
                assert_eq!(is_edited, at.view() == edited.view());
            }
        }
    }

    #[tokio::test]
    async fn an_erased_users_messages_are_redacted_for_those_who_came_later() {
        let room = TestRoom::with_visibility("shared").await;
        room.member("bob", "bob", "join").await;
        let early = room.say("alice", "secret").await;
        room.relate("alice", &early, "m.replace").await;
        room.member("carol", "carol", "join").await;
        let (store, alice) = (&room.rooms.env.store, user("alice"));
        let deactivated = Some(Deactivation { at_ms: 1, erase: true });
        let account = Account { deactivated, ..Account::default() };
        let erase = |tx: Tx| {
            tx.put(&ACCOUNTS, &alice, (), &account);
            ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        store.transact(erase).await.unwrap();
        let seen = room.seen_by(&viewer("bob"), &early).await.unwrap();
        assert_eq!(seen["content"]["body"], "secret");
        assert!(seen["unsigned"]["m.relations"].is_object());
        let seen = room.seen_by(&viewer("carol"), &early).await.unwrap();
        assert_eq!(seen["content"], json!({}));
        assert_eq!(seen["unsigned"].get("m.relations"), None);
    }

    #[tokio::test]
    async fn edits_references_and_threads_are_bundled() {
        let room = TestRoom::with_visibility("shared").await;
        room.member("bob", "bob", "join").await;
        let parent = room.say("alice", "parent").await;
        room.relate("alice", &parent, "m.replace").await;
        let edit = room.relate("alice", &parent, "m.replace").await;
        let forged = room.relate("bob", &parent, "m.replace").await;
        let reference = room.relate("bob", &parent, "m.reference").await;
        let gone = room.relate("bob", &parent, "m.reference").await;
        room.redact("bob", &gone).await;
        room.relate("alice", &parent, "m.thread").await;
        let threaded = room.relate("bob", &parent, "m.thread").await;
        let answer = room.relate("alice", &threaded, "m.reference").await;
        let seen = room.seen_by(&viewer("bob"), &parent).await.unwrap();
        let relations = &seen["unsigned"]["m.relations"];
        // Both edits are of the same millisecond: then the larger ID counts.
        assert_ne!(relations["m.replace"]["event_id"], forged.as_str());
        assert_eq!(relations["m.replace"]["content"]["m.new_content"]["body"], "x");
        assert!(relations["m.replace"]["event_id"].as_str().unwrap() >= edit.as_str());
        assert_eq!(relations["m.reference"], json!({"chunk": [{"event_id": reference}]}));
        let thread = &relations["m.thread"];
        assert_eq!(
            (&thread["count"], &thread["current_user_participated"]),
            (&json!(2), &json!(true))
        );
        let latest = &thread["latest_event"];
        assert_eq!(latest["event_id"], threaded.as_str());
        let bundled = &latest["unsigned"]["m.relations"]["m.reference"]["chunk"];
        assert_eq!(*bundled, json!([{"event_id": answer}]));
        let mut ignoring = viewer("alice");
        ignoring.ignored = Arc::new([user("bob")].into());
        let seen = room.seen_by(&ignoring, &parent).await.unwrap();
        let relations = &seen["unsigned"]["m.relations"];
        assert_eq!(relations["m.thread"]["count"], 1);
        assert_eq!(relations.get("m.reference"), None);
    }
}
