//! Files in a bucket of a service that speaks S3: Amazon's, or MinIO, Garage, Ceph and others.

use std::{fs::File, ops::Range, path::Path, time::Duration};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector},
    path::Path as Key,
};

use super::{
    BlobHash, Chunks, Storage, StorageError,
    folder::{blocking, chunks},
    hex,
};

/// Files that are larger go in parts of this size.
const PART_BYTES: u64 = 8 << 20;
/// Parts of a file that are under way at once: with one more, what an upload has in memory.
const PARTS_AT_ONCE: usize = 2;
/// How often a request is made again that failed for a reason that may pass.
const RETRIES_MAX: usize = 3;
/// How long that may take in all: somebody waits.
const RETRIES_FOR: Duration = Duration::from_secs(20);
/// What is written at the start, to see whether files can be kept.
const PROBE: &str = "millrace";

/// Which bucket, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// The name of the bucket.
    pub bucket: String,
    /// The address of the service; none for Amazon's.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// The name and the secret of the key. Where there are none, they are sought as Amazon's own tools
    /// do: in the environment, then from the machine.
    pub key: Option<(String, String)>,
    /// What the names of all files begin with.
    pub prefix: String,
    /// Whether the bucket is named by the host, not by the path.
    pub virtual_hosted: bool,
}

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    service: AmazonS3,
    prefix: String,
}

impl Bucket {
    /// Keeps files in a bucket, over connections of `client`.
    ///
    /// # Errors
    /// Where the settings cannot be used.
    pub fn new(settings: &BucketSettings, client: reqwest::Client) -> Result<Self, StorageError> {
        let builder = match &settings.key {
            Some((id, secret)) => {
                AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret)
            }
            None => AmazonS3Builder::from_env(),
        };
        let mut builder = builder
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(settings.virtual_hosted)
            .with_retry(RetryConfig {
                max_retries: RETRIES_MAX,
                retry_timeout: RETRIES_FOR,
                backoff: BackoffConfig::default(),
            })
            .with_http_connector(Connector(client));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder
                .with_endpoint(endpoint.trim_end_matches('/'))
                .with_allow_http(endpoint.starts_with("http://"));
        }
        let service = builder.build().map_err(|error| failed(&error))?;
        Ok(Self { service, prefix: settings.prefix.clone() })
    }

    /// Sees whether files can be kept, by writing a small one.
    ///
    /// # Errors
    /// What the service says where not.
    pub async fn check(&self) -> Result<(), StorageError> {
        let content = PutPayload::from_static(b"Millrace keeps media here.\n");
        self.service.put(&self.key(PROBE), content).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    fn key(&self, name: &str) -> Key {
        Key::from(format!("{}{name}", self.prefix))
    }

    fn key_of(&self, hash: &BlobHash) -> Key {
        self.key(&hex(hash))
    }
}

#[async_trait]
impl Storage for Bucket {
    async fn put(&self, hash: &BlobHash, file: &Path) -> Result<(), StorageError> {
        const UNREADABLE: &str = "a file that came in cannot be read";
        let key = self.key_of(hash);
        match self.service.head(&key).await {
            Ok(_) => return Ok(()), // Names are given to whole files only.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(&error)),
        }
        let file = file.to_owned();
        let open = blocking(move || {
            let file = File::open(file)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        });
        let (file, bytes) =
            open.await.map_err(|source| StorageError::Io { what: UNREADABLE, source })?;
        let content = chunks(file, 0..bytes, UNREADABLE);
        if bytes > PART_BYTES {
            return self.put_parts(&key, content).await;
        }
        let capacity = usize::try_from(bytes).unwrap_or_default();
        let gather = |mut whole: BytesMut, chunk: bytes::Bytes| async move {
            whole.extend_from_slice(&chunk);
            Ok(whole)
        };
        let whole = content.try_fold(BytesMut::with_capacity(capacity), gather).await?;
        let whole = PutPayload::from_bytes(whole.freeze());
        self.service.put(&key, whole).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    async fn read(&self, hash: &BlobHash, range: Range<u64>) -> Result<Chunks, StorageError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed()); // No range in the words of HTTP is empty.
        }
        let options = GetOptions::new().with_range(Some(range));
        let found = self.service.get_opts(&self.key_of(hash), options).await;
        let found = found.map_err(|error| match error {
            Error::NotFound { .. } => StorageError::Missing(hex(hash)),
            other => failed(&other),
        })?;
        Ok(found.into_stream().map_err(|error| failed(&error)).boxed())
    }

    async fn remove(&self, hash: &BlobHash) -> Result<(), StorageError> {
        match self.service.delete(&self.key_of(hash)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

impl Bucket {
    /// Sends a large file in parts. It is there when the last one is, or not at all.
    async fn put_parts(&self, key: &Key, mut content: Chunks) -> Result<(), StorageError> {
        let upload = self.service.put_multipart(key).await.map_err(|error| failed(&error))?;
        let part_bytes = usize::try_from(PART_BYTES).expect("a part fits into memory");
        let mut upload = WriteMultipart::new_with_chunk_size(upload, part_bytes);
        loop {
            let sent =
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|error| failed(&error));
            let next = match sent {
                Ok(()) => content.next().await.transpose(),
                Err(error) => Err(error),
            };
            match next {
                Ok(Some(chunk)) => upload.put(chunk),
                Ok(None) => break,
                Err(error) => {
                    if let Err(error) = upload.abort().await {
                        tracing::warn!(%error, "parts of a file stay in the media bucket");
                    }
                    return Err(error);
                }
            }
        }
        upload.finish().await.map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// Makes requests with a client that is there already.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn failed(error: &Error) -> StorageError {
    StorageError::Service(error.to_string())
}
