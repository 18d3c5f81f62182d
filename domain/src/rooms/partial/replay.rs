//! Judging again, on complete states, what came while a room was partial.

use std::sync::Arc;

use millrace_store::{
    Read, Scan,
    rows::{
        partial::{Before, Completion, Ending, PartialEvent},
        room::{EventHeader, Extremity, TimelineRow},
    },
    state_tree::StateRoot,
    tables::{EVENT_HEADERS, PARTIAL_EVENTS, TIMELINE},
};

use ruma::{UserId, events::TimelineEventType};

use super::known::Members;
use crate::rooms::{AppendError, Event, ReceiveError, RoomTx, events, judge::Verdict};

/// Servers whose members came or went that are remembered: the others know our users by their own
/// joining.
const MOVED_MAX: usize = 1000;

/// How far the log was played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Played {
    /// To its end.
    All,
    /// There is more.
    Some,
    /// Up to an event before which a state is wanted.
    UpToWanted,
}

impl RoomTx<'_> {
    /// Plays some of the log, as if its events came now into a room that is known whole. The head's
    /// ends and state stay as they are: what they are to be is in `completion`.
    pub(super) async fn replay(
        &mut self,
        completion: &mut Completion,
        events_max: usize,
    ) -> Result<Played, ReceiveError> {
        let scan = Scan::all().from(completion.next).limit(events_max);
        let rows = self.tx.scan(&PARTIAL_EVENTS, &self.room_id, scan).await?;
        let mut played = if rows.len() < events_max { Played::All } else { Played::Some };
        let ends = std::mem::take(&mut completion.ends);
        let shown = (std::mem::replace(&mut self.head.extremities, ends), self.head.root);
        self.head.root = completion.root.unwrap_or(StateRoot::EMPTY);
        self.members = Members::All;
        for (place, row) in rows {
            if !self.replay_one(row, completion).await? {
                played = Played::UpToWanted;
                break;
            }
            self.tx.delete(&PARTIAL_EVENTS, &self.room_id, place);
            completion.next = place + 1;
        }
        completion.root = Some(self.head.root);
        completion.ends = std::mem::replace(&mut self.head.extremities, shown.0);
        self.head.root = shown.1;
        self.members = Members::Some;
        Ok(played)
    }

    /// False where the state before the event is wanted first.
    async fn replay_one(
        &mut self,
        row: PartialEvent,
        completion: &mut Completion,
    ) -> Result<bool, ReceiveError> {
        let event = self.event(row.event).await?;
        let header = self.tx.get(&EVENT_HEADERS, &self.room_id, row.event).await?;
        let Some(header) = header else { return Ok(true) };
        self.note_moved(&event, completion);
        let known = header.before.unwrap_or(StateRoot::EMPTY);
        let before = match row.before {
            Before::Told => known,
            Before::Predecessors => match self.state_before(&event.pdu).await {
                Err(ReceiveError::MissingPrevEvents(_)) => known,
                before => before?,
            },
            Before::Omitted => {
                let mut states = completion.states.iter();
                match states.find(|(number, _)| *number == row.event) {
                    Some((_, state)) => *state,
                    None => return Ok(false),
                }
            }
        };
        let verdict = self.judge_again(&event, row, before).await?;
        if let Verdict::SoftFailed(refused) | Verdict::Rejected(refused) = &verdict
            && header.place.is_some()
        {
            tracing::info!(event = %event.pdu.event_id, %refused, "an event is taken back");
        }
        match verdict {
            Verdict::Allowed if row.ending == Ending::KeptBack => {
                self.take_back(&event, header, before, Refusal::Soft).await?;
            }
            Verdict::Allowed => {
                let returns = header.place.is_none() && row.ending != Ending::Past;
                if returns {
                    completion.returning.push(row.event);
                }
                self.readmit(&event, header, (row.ending, before)).await?;
            }
            Verdict::SoftFailed(_) => self.take_back(&event, header, before, Refusal::Soft).await?,
            Verdict::Rejected(_) => self.take_back(&event, header, before, Refusal::Hard).await?,
        }
        Ok(true)
    }

    /// Remembers the server of a member who came or went, whatever becomes of the event.
    fn note_moved(&self, event: &Event, completion: &mut Completion) {
        let member = event.pdu.kind == TimelineEventType::RoomMember;
        let user = event.pdu.state_key.as_deref().filter(|_| member);
        let Some(user) = user.and_then(|user| UserId::parse(user).ok()) else { return };
        let server = user.server_name();
        let (moved, is_local) = (&mut completion.moved, self.rooms.env.is_local(&user));
        if !is_local && moved.len() < MOVED_MAX && !moved.iter().any(|known| known == server) {
            moved.push(server.to_owned());
        }
    }

    async fn judge_again(
        &self,
        event: &Event,
        row: PartialEvent,
        before: StateRoot,
    ) -> Result<Verdict, ReceiveError> {
        let auth_events = self.auth_events_of(&event.pdu).await?;
        let current = match (row.ending, row.before) {
            // The server that let our user in has judged it, and the room stands on it.
            (Ending::Only, _) => return Ok(Verdict::Allowed),
            (Ending::Past, _) => {
                return Ok(self.judge_past(&event.pdu, &auth_events, before).await?);
            }
            (_, Before::Predecessors) => self.head.root,
            (_, Before::Told | Before::Omitted) => {
                let ends = self.head.extremities.iter().map(|end| end.after);
                self.resolved(&ends.chain([before]).collect::<Vec<_>>()).await?
            }
        };
        Ok(self.judge(&event.pdu, &auth_events, (before, current)).await?)
    }

    /// An event that is allowed: its place, if it has one, stays.
    async fn readmit(
        &mut self,
        event: &Arc<Event>,
        old: EventHeader,
        (ending, before): (Ending, StateRoot),
    ) -> Result<(), AppendError> {
        let replaces = self.replaced_by(event, before).await?;
        let place = old.place;
        let before_it = Some(before);
        let (rejected, soft_failed) = (false, false);
        let header =
            EventHeader { before: before_it, rejected, soft_failed, replaces, ..old.clone() };
        self.rejudge(event, (&old, header));
        let after = self.state_after(event, before).await?;
        let old_roots = self.roots();
        match ending {
            Ending::Past | Ending::KeptBack => {}
            Ending::Only => self.head.extremities.clear(),
            Ending::New | Ending::Followed => self.follow_ends(&event.pdu.prev_events).await?,
        }
        if matches!(ending, Ending::New | Ending::Only) {
            let event = event.pdu.reference(self.rules)?;
            self.head.extremities.push(Extremity { event, after });
        }
        let roots = self.roots();
        if roots != old_roots {
            self.head.root = self.resolved(&Vec::from_iter(roots)).await?;
        }
        match place {
            Some((n, 0)) => self.amend_row((n, 0), (before, self.head.root)).await,
            Some(place) => self.amend_row(place, (before, after)).await,
            None => Ok(()),
        }
    }

    /// An event that is refused: it loses its place, if it has one, and what it did. Its row in the
    /// timeline stays, as places are counted without holes; nobody is shown it.
    async fn take_back(
        &mut self,
        event: &Arc<Event>,
        old: EventHeader,
        before: StateRoot,
        refusal: Refusal,
    ) -> Result<(), AppendError> {
        let header = EventHeader {
            before: Some(before),
            place: None,
            rejected: refusal == Refusal::Hard,
            soft_failed: refusal == Refusal::Soft,
            ..old.clone()
        };
        let place = old.place;
        self.rejudge(event, (&old, header));
        let Some(place) = place else { return Ok(()) };
        self.undo_redaction(event).await?;
        self.amend_row(place, (before, self.head.root)).await
    }

    async fn undo_redaction(&mut self, event: &Event) -> Result<(), AppendError> {
        let Some(target) = &event.pdu.redacts else { return Ok(()) };
        let found = events::find(self.tx, &self.room_id, target).await?;
        if let Some((number, mut header)) = found
            && header.redacted_by == Some(event.number)
        {
            header.redacted_by = None;
            self.amend(number, &header);
        }
        Ok(())
    }

    /// Writes the header of an event that was judged again, where it changed.
    fn rejudge(&mut self, event: &Arc<Event>, (old, new): (&EventHeader, EventHeader)) {
        if event.pdu.rejected != new.rejected {
            let mut pdu = event.pdu.clone();
            pdu.rejected = new.rejected;
            let event = Event::new(event.number, pdu, self.rules);
            self.rooms.events.insert(&Arc::new(event));
        }
        if *old != new {
            self.amend(event.number, &new);
        }
    }

    /// Changes the states of a row of the timeline, which is no news to anybody.
    pub(super) async fn amend_row(
        &self,
        place: (i64, i32),
        (before, after): (StateRoot, StateRoot),
    ) -> Result<(), AppendError> {
        let row = self.tx.get_stamped(&TIMELINE, &self.room_id, place).await?;
        let Some((position, row)) = row else { return Ok(()) };
        let new = TimelineRow { before, after, ..row };
        if new != row {
            self.tx.amend(&TIMELINE, &self.room_id, place, (position, &new));
        }
        Ok(())
    }
}

/// How an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Soft,
    Hard,
}
