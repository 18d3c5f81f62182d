//! Threads of which users want to be notified, or do not (MSC4306). What that means for notifications is
//! in `millrace_model::rules::push`.

use futures::FutureExt;
use millrace_model::relations::{Relation, RelationKind};
use millrace_store::{
    Read, Tx,
    rows::user::ThreadSubscription,
    tables::{ROOM_HEAD, THREAD_SUBSCRIPTIONS},
};
use ruma::{EventId, OwnedEventId, RoomId, UserId};

use crate::{
    Env,
    rooms::{ReadError, RoomView},
};

/// Why nothing was said about a thread.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// There is no such event that the user may see.
    #[error("there is no event {0} that you may see")]
    UnknownThread(OwnedEventId),
    /// The event by which a client subscribes is not in the thread.
    #[error("{0} is not in the thread")]
    NotInThread(OwnedEventId),
    /// The user has unsubscribed after what a client subscribes by.
    #[error("you have unsubscribed from the thread after that event")]
    Unsubscribed,
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error("could not read or write the subscription")]
    Store(#[from] millrace_store::Error),
}

/// Who subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// The user.
    Hand,
    /// A client by itself, because of this event of the thread.
    Event(&'a EventId),
}

/// Subscribes the viewer to a thread. What was done by hand stays so.
///
/// # Errors
/// As [`SubscriptionError`] says.
pub async fn subscribe(
    env: &Env,
    view: &RoomView<'_>,
    root: &EventId,
    by: By<'_>,
) -> Result<(), SubscriptionError> {
    check_thread(view, root).await?;
    let cause = match by {
        By::Hand => None,
        By::Event(event) => Some(place_in_thread(view, root, event).await?),
    };
    let (user, key) = (&view.viewer.user, (view.room_id, root));
    let write = |tx: Tx| {
        async move {
            let known = tx.get(&THREAD_SUBSCRIPTIONS, user, key).await?;
            match (known, cause) {
                (Some(ThreadSubscription::Subscribed { .. }), Some(_)) => return Ok(()),
                (Some(ThreadSubscription::Unsubscribed { at }), Some(n)) if n <= at => {
                    return Err(SubscriptionError::Unsubscribed);
                }
                _ => {}
            }
            let subscribed = ThreadSubscription::Subscribed { automatic: cause.is_some() };
            tx.put(&THREAD_SUBSCRIPTIONS, user, key, &subscribed);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Unsubscribes the viewer from a thread, whether they were subscribed or not.
///
/// # Errors
/// As [`SubscriptionError`] says.
pub async fn unsubscribe(
    env: &Env,
    view: &RoomView<'_>,
    root: &EventId,
) -> Result<(), SubscriptionError> {
    check_thread(view, root).await?;
    let (user, room) = (&view.viewer.user, view.room_id);
    let write = |tx: Tx| {
        async move {
            let head = tx.unprotected().get(&ROOM_HEAD, room, ()).await?;
            let at = head.map_or(0, |head| head.last);
            let unsubscribed = ThreadSubscription::Unsubscribed { at };
            tx.put(&THREAD_SUBSCRIPTIONS, user, (room, root), &unsubscribed);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Whether the viewer is subscribed to a thread: if so, whether a client did it by itself.
///
/// # Errors
/// As [`SubscriptionError`] says.
pub async fn subscription(
    view: &RoomView<'_>,
    root: &EventId,
) -> Result<Option<bool>, SubscriptionError> {
    check_thread(view, root).await?;
    let key = (view.room_id, root);
    let known = view.snapshot.get(&THREAD_SUBSCRIPTIONS, &view.viewer.user, key).await?;
    Ok(known.and_then(|known| match known {
        ThreadSubscription::Subscribed { automatic } => Some(automatic),
        ThreadSubscription::Unsubscribed { .. } => None,
    }))
}

/// Whether a user has said anything about a thread: if so, whether they want to be notified.
///
/// # Errors
/// Where the store fails.
pub(crate) async fn wanted(
    read: &impl Read,
    user: &UserId,
    key: (&RoomId, &EventId),
) -> millrace_store::Result<Option<bool>> {
    let known = read.get(&THREAD_SUBSCRIPTIONS, user, key).await?;
    Ok(known.map(|known| matches!(known, ThreadSubscription::Subscribed { .. })))
}

async fn check_thread(view: &RoomView<'_>, root: &EventId) -> Result<(), SubscriptionError> {
    let found = view.find(root).await?;
    found.map(drop).ok_or_else(|| SubscriptionError::UnknownThread(root.to_owned()))
}

/// `n` of an event of the thread.
async fn place_in_thread(
    view: &RoomView<'_>,
    root: &EventId,
    event: &EventId,
) -> Result<i64, SubscriptionError> {
    let other = || SubscriptionError::NotInThread(event.to_owned());
    let found = view.find(event).await?.ok_or_else(other)?;
    let relation = Relation::of(&found.event.pdu);
    let relation = relation.filter(|relation| relation.kind == RelationKind::Thread);
    match relation {
        Some(relation) if relation.parent == root => Ok(found.index().n),
        _ => Err(other()),
    }
}
