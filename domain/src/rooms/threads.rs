//! The threads of a room (spec: Client-Server API, Querying threads in a room).

use millrace_model::{PageToken, TimelineIndex};
use millrace_store::{
    Read, Scan,
    tables::{EVENT_NUMBERS, THREADS_BY_NEWEST},
};

use super::{
    history::HistoryError,
    view::{RoomView, Seen},
};

/// Threads that one request looks through, at most.
const THREADS_MAX: usize = 1024;

/// Which threads are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// All.
    All,
    /// Those in which the viewer took part.
    Participated,
}

/// One page of threads.
#[derive(Debug)]
pub struct Threads {
    /// Their roots; the thread with the newest event comes first.
    pub roots: Vec<Seen>,
    /// Where to go on; none where there are no more.
    pub next: Option<PageToken>,
}

/// Reads one page of threads that the viewer may see something of.
///
/// # Errors
/// Where the room cannot be read.
pub async fn threads(
    view: &RoomView<'_>,
    include: Include,
    from: Option<TimelineIndex>,
    limit: usize,
) -> Result<Threads, HistoryError> {
    let mut roots: Vec<(i64, Seen)> = Vec::new();
    let mut before = from.map_or(i64::MAX, |from| from.n);
    let mut left = THREADS_MAX;
    while left > 0 {
        let batch = limit.saturating_add(1).min(left);
        let scan = Scan::all().before((before, "")).reverse().limit(batch);
        let rows = view.snapshot.scan(&THREADS_BY_NEWEST, view.room_id, scan).await?;
        let ids = rows.iter().map(|((_, root), ())| root);
        let numbers = view.snapshot.get_many(&EVENT_NUMBERS, view.room_id, ids).await?;
        for (((newest, _), ()), number) in rows.iter().zip(numbers) {
            let Some(root) = shown(view, include, number).await? else { continue };
            if roots.len() == limit {
                let last = roots.last().map_or(*newest, |(newest, _)| *newest);
                return Ok(page(roots, Some(last)));
            }
            roots.push((*newest, root));
        }
        let Some(((last, _), ())) = rows.last().filter(|_| rows.len() == batch) else {
            return Ok(page(roots, None));
        };
        (before, left) = (*last, left - batch);
    }
    Ok(page(roots, Some(before)))
}

fn page(roots: Vec<(i64, Seen)>, next: Option<i64>) -> Threads {
    Threads {
        roots: roots.into_iter().map(|(_, root)| root).collect(),
        next: next.map(|n| PageToken::before(TimelineIndex::live(n))),
    }
}

/// A root, if its thread is to be shown.
async fn shown(
    view: &RoomView<'_>,
    include: Include,
    number: Option<u64>,
) -> Result<Option<Seen>, HistoryError> {
    let Some(number) = number else { return Ok(None) };
    let Some(root) = view.look(&[number]).await?.pop() else { return Ok(None) };
    let thread = view.thread_at(&root).await?;
    let wanted = |participated: bool| include == Include::All || participated;
    Ok(thread.filter(|thread| wanted(thread.participated)).map(|_| root))
}
