//! What administrators do with media: looking at them, withdrawing them, and removing copies.

use std::collections::HashSet;

use futures::{FutureExt, StreamExt, TryStreamExt};
use millrace_store::{
    Node, Read, Result, Scan, Tx,
    rows::media::{Content, Medium, MediumKind},
    tables::{MEDIA, MEDIA_BY_DAY, USER_MEDIA},
};
use ruma::UserId;

use crate::{
    Media,
    media::day_of,
    mxc::Mxc,
    remove::{Removed, remove, remove_if},
};

/// How many media are looked at at the same time.
const AT_ONCE: usize = 32;
/// Copies that are removed between two looks at which are left.
const STEP_MAX: usize = 1000;

/// Whether there is such a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// There is.
    Yes,
    /// There is not.
    No,
}

/// What is known of a medium, withdrawn or not; none where it is not here.
///
/// # Errors
/// Where the store fails.
pub async fn medium(media: &Media, mxc: &Mxc) -> Result<Option<Medium>> {
    media.env.store.snapshot().get(&MEDIA, mxc.partition(), ()).await
}

/// All that a user has uploaded or created, the newest first.
///
/// # Errors
/// Where the store fails.
pub async fn media_of(media: &Media, user: &UserId) -> Result<Vec<(Mxc, Medium)>> {
    let snapshot = &media.env.store.snapshot();
    let ids = snapshot.scan(&USER_MEDIA, user, Scan::all()).await?;
    let server = &media.env.identity.name;
    let names = ids.into_iter().filter_map(|(id, ())| Mxc::new(server.clone(), id).ok());
    let look = |mxc: Mxc| async move {
        let medium = snapshot.get(&MEDIA, mxc.partition(), ()).await?;
        Ok::<_, millrace_store::Error>(medium.map(|medium| (mxc, medium)))
    };
    let found = futures::stream::iter(names).map(look).buffered(AT_ONCE);
    let found: Vec<Option<(Mxc, Medium)>> = found.try_collect().await?;
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort_by(|(a, one), (b, other)| (other.created_ms, b.id()).cmp(&(one.created_ms, a.id())));
    Ok(found)
}

/// Withdraws a medium in the name of an administrator, or gives it back to everybody. Where it is a
/// copy of another server's, it stays here, so that it is not fetched again.
///
/// # Errors
/// Where the store fails.
pub async fn quarantine(media: &Media, mxc: &Mxc, by: Option<&UserId>) -> Result<Known> {
    change(media, mxc, |medium| medium.quarantined_by = by.map(ToOwned::to_owned)).await
}

/// Withdraws all that a user has uploaded, but for what is protected. Returns how much that is.
///
/// # Errors
/// Where the store fails; then some of it is withdrawn.
pub async fn quarantine_of(media: &Media, user: &UserId, by: &UserId) -> Result<u64> {
    let all = media_of(media, user).await?;
    quarantine_all(media, all.into_iter().map(|(mxc, _)| mxc), by).await
}

/// Withdraws those of the media that are here, but for what is protected. Returns how many that is.
///
/// # Errors
/// Where the store fails; then some of them are withdrawn.
pub async fn quarantine_all(
    media: &Media,
    all: impl IntoIterator<Item = Mxc>,
    by: &UserId,
) -> Result<u64> {
    let mut done = 0;
    for mxc in all {
        let found = medium(media, &mxc).await?;
        if found.is_some_and(|medium| !medium.protected && medium.quarantined_by.is_none()) {
            quarantine(media, &mxc, Some(by)).await?;
            done += 1;
        }
    }
    Ok(done)
}

/// Whether [`quarantine_all`] and [`remove_old`] leave a medium alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// Says whether a medium stays when all of its owner's or of a room are withdrawn, and when old ones are
/// removed.
///
/// # Errors
/// Where the store fails.
pub async fn protect(media: &Media, mxc: &Mxc, protection: Protection) -> Result<Known> {
    change(media, mxc, |medium| medium.protected = protection == Protection::On).await
}

async fn change(media: &Media, mxc: &Mxc, change: impl Fn(&mut Medium) + Sync) -> Result<Known> {
    let partition = &mxc.partition();
    let write = |tx: Tx| {
        let change = &change;
        async move {
            let Some(mut medium) = tx.get(&MEDIA, partition, ()).await? else {
                return Ok(Known::No);
            };
            change(&mut medium);
            let place = (medium.kind.id(), medium.accessed_day, partition);
            // What is withdrawn never goes by itself; what is not uploaded yet has no place.
            match (&medium.quarantined_by, medium.content) {
                (Some(_), _) => tx.delete(&MEDIA_BY_DAY, Node, place),
                (None, Content::Stored { .. }) => tx.put(&MEDIA_BY_DAY, Node, place, &()),
                (None, Content::Pending { .. }) => {}
            }
            tx.put(&MEDIA, partition, (), &medium);
            Ok(Known::Yes)
        }
        .boxed()
    };
    media.env.store.transact(write).await
}

/// Removes copies of other servers' media that were last asked for on a day before the one of this
/// time, in milliseconds since 1970. Returns how many.
///
/// # Errors
/// Where the store fails; then some of them are gone.
pub async fn purge_remote(media: &Media, before_ms: u64) -> Result<u64> {
    media.write_accessed().await?;
    let kind = MediumKind::Remote.id();
    let mut done = 0;
    loop {
        let scan = Scan::prefix(kind).before((kind, day_of(before_ms))).limit(STEP_MAX);
        let rows = media.env.store.snapshot().scan(&MEDIA_BY_DAY, Node, scan).await?;
        if rows.is_empty() {
            return Ok(done);
        }
        for ((_, day, partition), ()) in rows {
            let removed = match Mxc::of_partition(&partition) {
                Some(mxc) => remove(media, &mxc).await?,
                None => Removed::No,
            };
            match removed {
                Removed::Yes => done += 1,
                Removed::No => forget_place(media, (kind, day, &partition)).await?,
            }
        }
    }
}

/// Forgets a place in the order of use at which nothing is.
async fn forget_place(media: &Media, (kind, day, partition): (u8, u32, &str)) -> Result<()> {
    let write = |tx: Tx| {
        tx.delete(&MEDIA_BY_DAY, Node, (kind, day, partition));
        std::future::ready(Ok(())).boxed()
    };
    media.env.store.transact(write).await
}

/// Which uploads are old and large enough to be removed.
#[derive(Debug, Clone, Copy)]
pub struct Old {
    /// Last asked for on a day before the one of this time, in milliseconds since 1970.
    pub before_ms: u64,
    /// Larger than so many bytes.
    pub larger_than: u64,
}

/// Removes old uploads, but for `kept` and what is protected or withdrawn. Returns which.
///
/// # Errors
/// Where the store fails; then some of them are gone.
pub async fn remove_old(media: &Media, old: Old, kept: &HashSet<Mxc>) -> Result<Vec<Mxc>> {
    media.write_accessed().await?;
    let kind = MediumKind::Local.id();
    let end = day_of(old.before_ms);
    let is_it = |medium: &Medium| {
        let large =
            matches!(medium.content, Content::Stored { bytes, .. } if bytes > old.larger_than);
        large && medium.accessed_day < end && !medium.protected && medium.quarantined_by.is_none()
    };
    let (mut removed, mut scan) = (Vec::new(), Scan::prefix(kind));
    loop {
        let some = scan.before((kind, end)).limit(STEP_MAX);
        let rows = media.env.store.snapshot().scan(&MEDIA_BY_DAY, Node, some).await?;
        let Some((last, ())) = rows.last() else { return Ok(removed) };
        // What is kept stays in its place.
        scan = Scan::prefix(kind).after((last.0, last.1, &last.2));
        for ((_, _, partition), ()) in &rows {
            let Some(mxc) = Mxc::of_partition(partition) else { continue };
            if !kept.contains(&mxc) && remove_if(media, &mxc, is_it).await? == Removed::Yes {
                removed.push(mxc);
            }
        }
    }
}

/// Removes all that a user has uploaded or created, at most `limit` media, the newest first.
///
/// # Errors
/// Where the store fails; then some of it is gone.
pub async fn remove_of(media: &Media, user: &UserId, limit: usize) -> Result<Vec<Mxc>> {
    let mut removed = Vec::new();
    for (mxc, _) in media_of(media, user).await?.into_iter().take(limit) {
        if remove(media, &mxc).await? == Removed::Yes {
            removed.push(mxc);
        }
    }
    Ok(removed)
}
