//! Kinds of rows of `MEDIA_DUE`: what ends at a time. Never changed.

/// Media that are created and not uploaded.
pub(crate) const PENDING: u8 = 0;
/// URL previews.
pub(crate) const PREVIEW: u8 = 1;
