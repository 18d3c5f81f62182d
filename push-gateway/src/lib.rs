//! A Matrix push gateway: `POST /_matrix/push/v1/notify` in, FCM, APNs and Web Push out.
//!
//! A call's way: [`notify`](gateway::Gateway::notify) finds the app of each device ([`apps`]), whose vendor
//! ([`apns`], [`fcm`], [`webpush`]) makes the request that would be sent. [`delivery`] sends all of
//! them at the same time, each with its own attempts. The vendors share one shape,
//! [`vendor::Vendor`]; nothing else knows what an answer of theirs means.

pub mod apns;
pub mod apps;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod fcm;
pub mod gateway;
pub mod glob;
pub mod internet;
pub mod jwt;
pub mod memory;
pub mod metrics;
pub mod notification;
pub mod router;
pub mod serve;
pub mod shorten;
pub mod vendor;
pub mod webpush;
