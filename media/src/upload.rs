//! Uploads: at once, or to a media ID that was created before (spec: Client-Server API, Content
//! repository; `POST /upload`, `POST /create`, `PUT /upload/{serverName}/{mediaId}`).

use bytes::Bytes;
use futures::{FutureExt, Stream, future::BoxFuture};
use millrace_store::{
    Node, PartitionId, Read, Tx,
    rows::media::{Content, MediaUsage, Medium, MediumKind, PendingMedium},
    tables::{BLOBS, MEDIA, MEDIA_BY_DAY, MEDIA_DUE, MEDIA_USAGE, USER_MEDIA},
};
use ruma::{OwnedUserId, UserId};

use crate::{
    Media,
    blobs::add_use,
    due,
    mxc::Mxc,
    spool::{ReceiveError, Spooled},
    storage::{StorageError, hex},
    usage::{self, QuotaError},
};

/// The longest file name, in bytes, as file systems have it.
const FILE_NAME_BYTES_MAX: usize = 255;
/// The longest `Content-Type`, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Letters of the name of a file that comes in.
const INCOMING_LETTERS: usize = 16;

/// What an uploader says of the content.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// Its name.
    pub file_name: Option<String>,
    /// Its size as it was announced, if it was.
    pub bytes: Option<u64>,
}

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The content is too large, broken off, or cannot be written.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The user has too much.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The name is too long.
    #[error("a file name has at most {FILE_NAME_BYTES_MAX} bytes")]
    FileName,
    /// The type is too long, or no text for a header.
    #[error("a content type has at most {CONTENT_TYPE_BYTES_MAX} printable characters")]
    ContentType,
    /// The media ID was not created here, or has expired.
    #[error("there is no medium {0} to upload to")]
    Unknown(String),
    /// Somebody else created the media ID.
    #[error("only the user who created a medium can upload to it")]
    NotOwner,
    /// There is content already.
    #[error("the medium has been uploaded already")]
    Uploaded,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store failed.
    #[error("could not keep the medium")]
    Store(#[from] millrace_store::Error),
}

impl Description {
    /// Without what is too long, or no text for a header: another server's words are no reason to
    /// refuse its media.
    pub(crate) fn bounded(mut self) -> Self {
        self.content_type = self.content_type.filter(is_type);
        self.file_name = self.file_name.filter(|name| name.len() <= FILE_NAME_BYTES_MAX);
        self
    }

    fn check(&self, bytes_max: u64) -> Result<(), UploadError> {
        if self.bytes.is_some_and(|bytes| bytes > bytes_max) {
            return Err(ReceiveError::TooLarge(bytes_max).into());
        }
        if self.file_name.as_ref().is_some_and(|name| name.len() > FILE_NAME_BYTES_MAX) {
            return Err(UploadError::FileName);
        }
        if !self.content_type.as_ref().is_none_or(is_type) {
            return Err(UploadError::ContentType);
        }
        Ok(())
    }
}

#[expect(clippy::ptr_arg, reason = "a filter's predicate")]
fn is_type(text: &String) -> bool {
    let printable = |byte: u8| matches!(byte, b' '..=b'~');
    text.len() <= CONTENT_TYPE_BYTES_MAX && text.bytes().all(printable)
}

/// Keeps what `user` uploads, under a new media ID.
///
/// # Errors
/// As [`UploadError`] says; then nothing is kept.
pub async fn upload<E: std::fmt::Display>(
    media: &Media,
    user: &UserId,
    description: Description,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Mxc, UploadError> {
    let spooled = receive(media, user, &description, content).await?;
    let mxc = media.new_mxc();
    let partition = mxc.partition();
    let medium = media.new_medium(MediumKind::Local, &spooled, description);
    let medium = &Medium { owner: Some(user.to_owned()), ..medium };
    let (partition, id) = (partition.as_str(), mxc.id());
    let write = |tx: Tx| {
        let bytes = spooled.bytes;
        async move {
            let mut usage = tx.get(&MEDIA_USAGE, user, ()).await?.unwrap_or_default();
            usage::add_file(&media.settings, &mut usage, bytes)?;
            tx.put(&MEDIA_USAGE, user, (), &usage);
            tx.put(&USER_MEDIA, user, id, &());
            write_medium(&tx, partition, medium).await?;
            Ok::<_, UploadError>(())
        }
        .boxed()
    };
    media.keep(&spooled, write, is_refusal).await?;
    Ok(mxc)
}

/// A media ID that can be uploaded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The name of the medium.
    pub mxc: Mxc,
    /// Until when it can be uploaded to, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Creates a media ID, to be uploaded to later.
///
/// # Errors
/// Where too many wait for their upload.
pub async fn create(media: &Media, user: &UserId) -> Result<Created, UploadError> {
    let lifetime_ms = u64::try_from(media.settings.pending_lifetime.as_millis());
    let now_ms = media.now_ms();
    let expires_ms = now_ms.saturating_add(lifetime_ms.unwrap_or(u64::MAX));
    let mxc = media.new_mxc();
    let (partition, id) = (&mxc.partition(), mxc.id());
    let medium = &Medium {
        content: Content::Pending { expires_ms },
        owner: Some(user.to_owned()),
        content_type: None,
        file_name: None,
        created_ms: now_ms,
        accessed_day: media.today(),
        kind: MediumKind::Local,
        frozen: media.settings.freeze,
        quarantined_by: None,
        protected: false,
        thumbnails: 0,
    };
    let write = |tx: Tx| {
        async move {
            let mut usage = tx.get(&MEDIA_USAGE, user, ()).await?.unwrap_or_default();
            let pending = PendingMedium { id: id.to_owned(), expires_ms };
            usage::add_pending(&media.settings, &mut usage, pending, now_ms)?;
            tx.put(&MEDIA_USAGE, user, (), &usage);
            tx.put(&USER_MEDIA, user, id, &());
            tx.put(&MEDIA, partition, (), medium);
            tx.put(&MEDIA_DUE, Node, (expires_ms, due::PENDING, partition), &());
            Ok::<_, UploadError>(())
        }
        .boxed()
    };
    media.env.store.transact(write).await?;
    Ok(Created { mxc, expires_ms })
}

/// Keeps what `user` uploads, under a media ID that the user has created.
///
/// # Errors
/// As [`UploadError`] says; then nothing is kept, and the ID can still be uploaded to.
pub async fn upload_to<E: std::fmt::Display>(
    media: &Media,
    user: &UserId,
    mxc: &Mxc,
    description: Description,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), UploadError> {
    let partition = &mxc.partition();
    pending(media, user, mxc, &media.env.store.snapshot()).await?;
    let spooled = receive(media, user, &description, content).await?;
    let uploaded = &media.new_medium(MediumKind::Local, &spooled, description);
    let write = |tx: Tx| {
        let bytes = spooled.bytes;
        async move {
            let created = pending(media, user, mxc, &tx).await?;
            let mut usage: MediaUsage = tx.get(&MEDIA_USAGE, user, ()).await?.unwrap_or_default();
            usage.pending.retain(|pending| pending.id != mxc.id());
            usage::add_file(&media.settings, &mut usage, bytes)?;
            tx.put(&MEDIA_USAGE, user, (), &usage);
            tx.delete(&MEDIA_DUE, Node, (created.expires_ms, due::PENDING, partition));
            let medium = Medium { owner: Some(created.owner), ..uploaded.clone() };
            write_medium(&tx, partition, &medium).await?;
            Ok::<_, UploadError>(())
        }
        .boxed()
    };
    media.keep(&spooled, write, is_refusal).await?;
    media.env.store.watchers().announce([PartitionId::of::<String>(partition)]);
    Ok(())
}

/// Whether it is known that nothing was written.
fn is_refusal(error: &UploadError) -> bool {
    !matches!(error, UploadError::Store(_))
}

struct PendingUpload {
    owner: OwnedUserId,
    expires_ms: u64,
}

/// The medium that `user` may upload to.
async fn pending(
    media: &Media,
    user: &UserId,
    mxc: &Mxc,
    read: &impl Read,
) -> Result<PendingUpload, UploadError> {
    let unknown = || UploadError::Unknown(mxc.to_string());
    if !media.is_local(mxc) {
        return Err(unknown());
    }
    let medium = read.get(&MEDIA, mxc.partition(), ()).await?.ok_or_else(unknown)?;
    let owner = medium.owner.filter(|owner| owner == user).ok_or(UploadError::NotOwner)?;
    match medium.content {
        Content::Stored { .. } => Err(UploadError::Uploaded),
        Content::Pending { expires_ms } if expires_ms <= media.now_ms() => Err(unknown()),
        Content::Pending { expires_ms } => Ok(PendingUpload { owner, expires_ms }),
    }
}

async fn receive<E: std::fmt::Display>(
    media: &Media,
    user: &UserId,
    description: &Description,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Spooled, UploadError> {
    let bytes_max = media.settings.upload_bytes_max;
    description.check(bytes_max)?;
    media.check_quota(user, description.bytes.unwrap_or(0)).await??;
    Ok(media.receive(content, bytes_max).await?)
}

impl Media {
    /// Takes in a file.
    pub(crate) async fn receive<E: std::fmt::Display>(
        &self,
        content: impl Stream<Item = Result<Bytes, E>>,
        bytes_max: u64,
    ) -> Result<Spooled, ReceiveError> {
        self.spool.receive(&self.env.random_text(INCOMING_LETTERS), content, bytes_max).await
    }

    /// Puts a file into the storage and commits what uses it. Nobody removes the file meanwhile. Where
    /// the commit is refused and nothing else uses the file, it is removed.
    pub(crate) async fn keep<'a, T, E, F>(
        &self,
        spooled: &Spooled,
        write: F,
        is_refusal: impl Fn(&E) -> bool,
    ) -> Result<T, E>
    where
        E: From<millrace_store::Error> + From<StorageError>,
        F: Fn(Tx) -> BoxFuture<'a, Result<T, E>>,
    {
        let _gate = self.gates.enter(&hex(&spooled.hash)).await;
        self.storage.put(&spooled.hash, &spooled.path).await?;
        let done = self.env.store.transact(write).await;
        if done.as_ref().is_err_and(is_refusal)
            && self.env.store.snapshot().get(&BLOBS, spooled.hash, ()).await?.is_none()
        {
            self.storage.remove(&spooled.hash).await?;
        }
        done
    }

    /// A medium that consists of a file, asked for today.
    pub(crate) fn new_medium(
        &self,
        kind: MediumKind,
        spooled: &Spooled,
        description: Description,
    ) -> Medium {
        Medium {
            content: Content::Stored { blob: spooled.hash, bytes: spooled.bytes },
            owner: None,
            content_type: description.content_type,
            file_name: description.file_name,
            created_ms: self.now_ms(),
            accessed_day: self.today(),
            kind,
            frozen: self.settings.freeze,
            quarantined_by: None,
            protected: false,
            thumbnails: 0,
        }
    }
}

/// Writes a medium whose file is placed.
pub(crate) async fn write_medium(
    tx: &Tx,
    partition: &str,
    medium: &Medium,
) -> millrace_store::Result<()> {
    if let Content::Stored { blob, bytes } = &medium.content {
        add_use(tx, blob, *bytes).await?;
    }
    tx.put(&MEDIA, partition, (), medium);
    tx.put(&MEDIA_BY_DAY, Node, (medium.kind.id(), medium.accessed_day, partition), &());
    Ok(())
}
