//! Policy servers: who has to vouch for the events of a room that wants that (spec: Server-Server
//! API, Policy Servers).
//!
//! A transaction asks nobody. One that makes or receives an event without the signature that the room
//! wants ends with a [`Question`]; [`transact`] asks it, and runs the transaction again with the
//! answer.

use std::sync::Arc;

use futures::future::BoxFuture;
use millrace_model::{
    Pdu,
    rules::{
        auth::Refused,
        build::{BuildError, EVENT_BYTES_MAX},
    },
};
use millrace_store::{Read, Tx, tables::EVENT_HEADERS};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, RoomId, SigningKeyAlgorithm,
    api::error::ErrorKind,
    events::room::policy::{POLICY_SERVER_ED25519_SIGNING_KEY_ID, RoomPolicyEventContent},
    room_version_rules::RoomVersionRules,
    signatures,
};

use super::{AppendError, Draft, Numbers, RoomTx, Rooms, servers};

/// So often the policy server is asked for the sake of one change of a room. An upgrade makes most
/// events; where the policy changes meanwhile, it is asked again.
const QUESTIONS_MAX: usize = 64;

/// Who waits for a policy server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedFor {
    /// A user of ours, who sends the event.
    Sender,
    /// Nobody: another server sent the event.
    Receiver,
}

/// The policy servers, as they are asked.
pub trait PolicyServers: Send + Sync + 'static {
    /// What the policy server at `policy.via` signs `event` with: unpadded base64.
    fn sign<'a>(
        &'a self,
        policy: &'a RoomPolicyEventContent,
        event: &'a Pdu,
        asked_for: AskedFor,
    ) -> BoxFuture<'a, Result<String, NotVouched>>;
}

/// Nobody can be asked.
#[derive(Debug, Clone, Copy)]
pub struct NoPolicyServers;

impl PolicyServers for NoPolicyServers {
    fn sign<'a>(
        &'a self,
        _: &'a RoomPolicyEventContent,
        _: &'a Pdu,
        _: AskedFor,
    ) -> BoxFuture<'a, Result<String, NotVouched>> {
        let alone = "this server talks to no others".to_owned();
        Box::pin(std::future::ready(Err(NotVouched::Unreachable(alone))))
    }
}

/// Why the policy server of a room does not vouch for an event.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotVouched {
    /// It says no, in its own words.
    #[error("{message}")]
    Refused {
        /// Its error code.
        kind: ErrorKind,
        /// What it says.
        message: String,
    },
    /// It cannot be asked.
    #[error("the room's policy server cannot be asked: {0}")]
    Unreachable(String),
    /// It answered without a signature that holds.
    #[error("the room's policy server did not sign with the room's policy key")]
    Unsigned,
    /// The room's policy kept changing, or there was too much to ask.
    #[error("the room's policy server was asked too often")]
    Restless,
}

/// What the policy server of a room is to be asked.
#[derive(Debug)]
struct Question {
    policy: RoomPolicyEventContent,
    event: Pdu,
    /// What the event was made of, where it is ours.
    draft: Option<Draft>,
    rules: &'static RoomVersionRules,
}

/// What came of a question.
#[derive(Debug, Clone)]
struct Answer {
    /// The event, with the signature where there is one.
    event: Pdu,
    draft: Option<Draft>,
    refused: Option<NotVouched>,
}

/// What policy servers have said of the events of one change of a room, and what is to be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Vouching(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    answers: Vec<Answer>,
    question: Option<Box<Question>>,
}

/// The answers of earlier runs of a transaction, for one run.
#[derive(Debug, Default)]
pub(super) struct Answers(std::vec::IntoIter<Answer>);

impl Vouching {
    /// What was answered in earlier runs.
    pub fn answers(&self) -> Answers {
        Answers(self.0.lock().answers.clone().into_iter())
    }
}

impl Answers {
    /// The event that an earlier run has made of the same draft, signed.
    fn made_of(&mut self, draft: &Draft) -> Option<Pdu> {
        Some(self.0.find(|answer| answer.draft.as_ref() == Some(draft))?.event)
    }

    fn of_event(&mut self, event: &OwnedEventId) -> Option<Answer> {
        self.0.find(|answer| answer.event.event_id == *event)
    }
}

/// Makes a change of a room in a transaction of its own, as [`vouching`] does.
///
/// # Errors
/// As [`vouching`].
pub(super) async fn transact<'a, T, E, F>(
    rooms: &Rooms,
    room: &RoomId,
    numbers: &Numbers,
    body: F,
) -> Result<T, E>
where
    E: From<millrace_store::Error> + From<AppendError>,
    F: Fn(Tx) -> BoxFuture<'a, Result<T, E>>,
{
    vouching(rooms, numbers, || rooms.env.store.transact_in(room, &body)).await
}

/// Runs a transaction. Where a room's policy server must vouch for an event of it, it is asked, and
/// the transaction run again with its answer. `numbers` are those with which it opens the room.
///
/// # Errors
/// As the transaction; [`AppendError::NotVouched`] where the policy server does not vouch for an event
/// of ours.
pub(super) async fn vouching<T, E, R>(
    rooms: &Rooms,
    numbers: &Numbers,
    run: impl Fn() -> R,
) -> Result<T, E>
where
    E: From<AppendError>,
    R: Future<Output = Result<T, E>>,
{
    for _ in 0..QUESTIONS_MAX {
        let result = run().await;
        let question = numbers.vouching.0.lock().question.take();
        let Some(question) = question.filter(|_| result.is_err()) else { return result };
        let answer = ask(rooms, *question).await?;
        if let (Some(_), Some(refused)) = (&answer.draft, &answer.refused) {
            return Err(AppendError::NotVouched(refused.clone()).into());
        }
        numbers.vouching.0.lock().answers.push(answer);
    }
    Err(AppendError::NotVouched(NotVouched::Restless).into())
}

async fn ask(rooms: &Rooms, question: Question) -> Result<Answer, AppendError> {
    let Question { policy, event, draft, rules } = question;
    let asked_for = if draft.is_some() { AskedFor::Sender } else { AskedFor::Receiver };
    let refused = match rooms.policy_servers.sign(&policy, &event, asked_for).await {
        Ok(signature) => match signed(&policy, &event, &signature, rules)? {
            Some(event) => return Ok(Answer { event, draft, refused: None }),
            None => NotVouched::Unsigned,
        },
        Err(refused) => refused,
    };
    Ok(Answer { event, draft, refused: Some(refused) })
}

/// The event with the policy server's signature besides its others; `None` where that does not hold.
fn signed(
    policy: &RoomPolicyEventContent,
    event: &Pdu,
    signature: &str,
    rules: &RoomVersionRules,
) -> Result<Option<Pdu>, AppendError> {
    let mut object = canonical(event)?;
    add_signature(&mut object, policy.via.as_str(), signature);
    if signatures::verify_policy_server_signature(policy, &object, rules).is_err() {
        return Ok(None);
    }
    let mut signed = Pdu::from_canonical(&object, rules)?;
    signed.rejected = event.rejected;
    let bytes = signed.json().len();
    if bytes > EVENT_BYTES_MAX {
        let (field, bytes_max) = ("event", EVENT_BYTES_MAX);
        return Err(BuildError::TooLarge { field, bytes, bytes_max }.into());
    }
    Ok(Some(signed))
}

fn canonical(event: &Pdu) -> Result<CanonicalJsonObject, AppendError> {
    Ok(event.to_canonical().map_err(millrace_model::pdu::InvalidPdu::from)?)
}

/// Adds the policy server's signature to those that the event bears, also of the same server.
fn add_signature(object: &mut CanonicalJsonObject, server: &str, signature: &str) {
    let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
    let all = object.entry("signatures".to_owned()).or_insert_with(empty);
    let CanonicalJsonValue::Object(all) = all else { return };
    let CanonicalJsonValue::Object(of_server) = all.entry(server.to_owned()).or_insert_with(empty)
    else {
        return;
    };
    let id = POLICY_SERVER_ED25519_SIGNING_KEY_ID.to_owned();
    of_server.insert(id, CanonicalJsonValue::String(signature.to_owned()));
}

impl RoomTx<'_> {
    /// As [`RoomTx::make`], with the signature of the room's policy server where it has one: with
    /// [`AppendError::Unvouched`] the transaction is to end, and [`transact`] asks and runs it again.
    pub(super) async fn make_vouched(
        &mut self,
        draft: Draft,
    ) -> Result<(Pdu, millrace_store::state_tree::StateRoot), AppendError> {
        if self.head.policy.is_none() {
            return self.make(draft).await;
        }
        let made = match self.answers.made_of(&draft) {
            Some(event) => self.made_before(event).await?,
            None => self.make(draft.clone()).await?,
        };
        self.require_vouched(&made.0, Some(&draft)).await?;
        Ok(made)
    }

    /// An event that an earlier run has made, and the state before it; the room may have gone on.
    async fn made_before(
        &self,
        event: Pdu,
    ) -> Result<(Pdu, millrace_store::state_tree::StateRoot), AppendError> {
        let before = self.state_before(&event).await?;
        let auth_events = self.auth_events_of(&event).await?;
        match self.judge(&event, &auth_events, (before, self.head.root)).await? {
            super::judge::Verdict::Allowed => Ok((event, before)),
            super::judge::Verdict::SoftFailed(refused)
            | super::judge::Verdict::Rejected(refused) => Err(refused.into()),
        }
    }

    /// Whether the room's policy server vouches for an event that the room's rules allow; adds its
    /// signature. [`AppendError::Unvouched`] where it is to be asked first.
    pub(super) async fn is_vouched(
        &mut self,
        event: &mut Pdu,
    ) -> Result<Result<(), Refused>, AppendError> {
        if self.head.policy.is_none() {
            return Ok(Ok(()));
        }
        match self.answers.of_event(&event.event_id) {
            Some(Answer { refused: Some(refused), .. }) => {
                return Ok(Err(Refused(refused.to_string())));
            }
            Some(answer) => *event = answer.event,
            None => {}
        }
        self.require_vouched(event, None).await?;
        Ok(Ok(()))
    }

    async fn require_vouched(&self, event: &Pdu, draft: Option<&Draft>) -> Result<(), AppendError> {
        let Some(policy) = self.policy().await? else { return Ok(()) };
        let object = canonical(event)?;
        if signatures::verify_policy_server_signature(&policy, &object, self.rules).is_ok() {
            return Ok(());
        }
        let (event, draft, rules) = (event.clone(), draft.cloned(), self.rules);
        let question = Question { policy, event, draft, rules };
        self.vouching.0.lock().question = Some(Box::new(question));
        Err(AppendError::Unvouched)
    }

    /// The policy server that the room uses: the current state names it rightly, and it has somebody
    /// in the room.
    async fn policy(&self) -> Result<Option<RoomPolicyEventContent>, AppendError> {
        let Some(number) = self.head.policy else { return Ok(None) };
        let header = self.tx.get(&EVENT_HEADERS, &self.room_id, number).await?;
        if header.is_none_or(|header| header.redacted_by.is_some()) {
            return Ok(None);
        }
        let event = self.event(number).await?;
        let Ok(policy) = event.pdu.content_as::<RoomPolicyEventContent>() else { return Ok(None) };
        let has_key = policy.public_keys.contains_key(&SigningKeyAlgorithm::Ed25519);
        let is_in = has_key && servers::is_in_room(self.tx, &self.room_id, &policy.via).await?;
        Ok(is_in.then_some(policy))
    }
}

#[cfg(test)]
mod tests;
