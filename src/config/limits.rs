//! Bounds that the specification leaves open.

use serde::{Deserialize, Serialize};

use super::Problems;

/// How large and how long things may be. An event is at most 65,536 bytes, by the specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest body of a request, in bytes.
    pub max_request_size: usize,
    /// See [`Bounds`].
    pub limits: Bounds,
}

/// The table `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Arrays and objects within each other in a JSON body.
    pub json_depth_max: usize,
    /// Entries of one page: events, rooms, members, search results.
    pub page_entries_max: u32,
    /// Longest wait of one `/sync`, in seconds.
    pub sync_timeout_max_s: u64,
    /// Longest time a user is shown as typing after one request, in seconds.
    pub typing_timeout_max_s: u64,
    /// Connections open at once.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_request_size: 20_000_000, limits: Bounds::default() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            json_depth_max: 100,
            page_entries_max: 1000,
            sync_timeout_max_s: 120,
            typing_timeout_max_s: 120,
            connections_max: 100_000,
        }
    }
}

impl Limits {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let Bounds { json_depth_max, page_entries_max, .. } = self.limits;
        let enough = self.max_request_size >= 131_072;
        problems.require(enough, "max_request_size", "must be at least 131072 (128 KiB)");
        // The parser itself stops at 128 levels, and stored events lie a few levels deeper.
        let bearable = (10..=110).contains(&json_depth_max);
        problems.require(bearable, "limits.json_depth_max", "must be 10 to 110");
        let pages = (10..=100_000).contains(&page_entries_max);
        problems.require(pages, "limits.page_entries_max", "must be 10 to 100000");
        let positive = self.limits.connections_max > 0;
        problems.require(positive, "limits.connections_max", "must be above 0");
    }
}
