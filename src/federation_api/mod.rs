//! The server-server API: what other servers ask of us. Thin handlers, one file for each family of
//! endpoints (spec: Server-Server API).

pub(crate) mod authenticate;
mod backfill;
mod directory;
mod events;
mod keys;
mod media;
mod membership;
mod membership_errors;
mod openid;
mod profiles;
mod requests;
mod room;
mod spaces;
mod state;
mod third_party_invites;
mod transactions;
mod user_keys;
mod version;

use axum::Router;

use crate::app::App;

/// All endpoints that other servers use.
pub fn routes() -> Router<App> {
    Router::new()
        .merge(backfill::routes())
        .merge(directory::routes())
        .merge(events::routes())
        .merge(keys::routes())
        .merge(media::routes())
        .merge(membership::routes())
        .merge(openid::routes())
        .merge(profiles::routes())
        .merge(spaces::routes())
        .merge(state::routes())
        .merge(third_party_invites::routes())
        .merge(transactions::routes())
        .merge(user_keys::routes())
        .merge(version::routes())
}
