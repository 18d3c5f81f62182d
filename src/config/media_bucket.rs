//! Media in a bucket of a service that speaks S3.

use millrace_media::storage::BucketSettings;
use serde::{Deserialize, Serialize};

use super::Problems;

/// The bucket in which media are kept: the table `media.s3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaBucket {
    /// The name of the bucket; none for a folder of this machine.
    pub bucket: Option<String>,
    /// The address of the service; none for Amazon's.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// The name of the key.
    pub access_key_id: Option<String>,
    /// The secret that goes with it.
    pub secret_access_key: Option<String>,
    /// What the names of all files begin with.
    pub prefix: String,
    /// Whether the bucket is named by the host, not by the path.
    pub virtual_hosted_style: bool,
}

impl Default for MediaBucket {
    fn default() -> Self {
        Self {
            bucket: None,
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key_id: None,
            secret_access_key: None,
            prefix: String::new(),
            virtual_hosted_style: false,
        }
    }
}

impl MediaBucket {
    /// The settings as they are used; none where media are in a folder.
    #[must_use]
    pub fn settings(&self) -> Option<BucketSettings> {
        Some(BucketSettings {
            bucket: self.bucket.clone()?,
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            key: self.access_key_id.clone().zip(self.secret_access_key.clone()),
            prefix: self.prefix.clone(),
            virtual_hosted: self.virtual_hosted_style,
        })
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let named = self.bucket.as_ref().is_none_or(|bucket| !bucket.is_empty());
        problems.require(named, "media.s3.bucket", "must name a bucket");
        let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        let reachable = self.endpoint.as_ref().is_none_or(is_url);
        let problem = "must start with https:// or http://";
        problems.require(reachable, "media.s3.endpoint", problem);
        problems.require(!self.region.is_empty(), "media.s3.region", "must not be empty");
        let pair = self.access_key_id.is_some() == self.secret_access_key.is_some();
        let problem = "must be set together with access_key_id";
        problems.require(pair, "media.s3.secret_access_key", problem);
        let path = !self.prefix.starts_with('/') && !self.prefix.contains("//");
        let problem = "must not begin with a slash, nor have two of them together";
        problems.require(path, "media.s3.prefix", problem);
    }
}
