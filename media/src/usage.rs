//! How much a user has in the repository, and how much that may be.

use millrace_store::{
    Read,
    rows::media::{MediaUsage, PendingMedium},
    tables::MEDIA_USAGE,
};
use ruma::UserId;

use crate::{Media, Settings};

/// Why a user may not have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// All that is uploaded would be too large.
    #[error("all that you upload may be at most {0} bytes")]
    Bytes(u64),
    /// There are too many media.
    #[error("you may upload at most {0} files")]
    Files(u64),
    /// Too many media IDs wait for an upload.
    #[error("at most {0} created media may wait for their upload")]
    Pending(usize),
}

/// Adds a file to what a user has.
pub(crate) fn add_file(
    settings: &Settings,
    usage: &mut MediaUsage,
    bytes: u64,
) -> Result<(), QuotaError> {
    let (bytes, files) = (usage.bytes.saturating_add(bytes), usage.files + 1);
    if let Some(most) = settings.user_bytes_max.filter(|most| bytes > *most) {
        return Err(QuotaError::Bytes(most));
    }
    if let Some(most) = settings.user_files_max.filter(|most| files > *most) {
        return Err(QuotaError::Files(most));
    }
    (usage.bytes, usage.files) = (bytes, files);
    Ok(())
}

/// Adds a media ID that waits for its upload; those that have expired count no more.
pub(crate) fn add_pending(
    settings: &Settings,
    usage: &mut MediaUsage,
    pending: PendingMedium,
    now_ms: u64,
) -> Result<(), QuotaError> {
    usage.pending.retain(|other| other.expires_ms > now_ms);
    if usage.pending.len() >= settings.pending_max {
        return Err(QuotaError::Pending(settings.pending_max));
    }
    usage.pending.push(pending);
    Ok(())
}

impl Media {
    /// Refuses an upload that could not be kept anyway, before it comes in.
    pub(crate) async fn check_quota(
        &self,
        user: &UserId,
        bytes: u64,
    ) -> millrace_store::Result<Result<(), QuotaError>> {
        let usage = self.env.store.snapshot().get(&MEDIA_USAGE, user, ()).await?;
        Ok(add_file(&self.settings, &mut usage.unwrap_or_default(), bytes))
    }
}
