//! All routes, and what is true of every answer.

use std::{any::Any, collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::{FromRef, Request},
    handler::Handler,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use ruma::api::{IncomingRequest, Metadata, path_builder::PathBuilder};
use tower_http::catch_panic::CatchPanicLayer;

use super::{
    account, account_data, address_fallback, admin, aliases, appservices, appservices_admin,
    auth_fallback, capabilities, consent, create_room, cross_signing, dehydrated_device, devices,
    discovery,
    error::ApiError,
    extract::{Matrix, Streamed},
    filters, history, key_backup, keys, login, media, media_admin, media_downloads, media_previews,
    media_thumbnails, members, membership, mutual_rooms, old_sync, pages, profiles, push_rules,
    pushers, receipts, register, relations, reports, room_directory, room_state, search, send,
    server_notices, sliding_sync, spaces, sso, synapse_admin, sync, third_party,
    thread_subscriptions, threepids, to_device, typing, unsubscribe_pages, user_directory,
    user_export, validation_pages, validation_requests, validation_words, voip,
};
use crate::{
    app::App,
    federation_api::{self, authenticate::Signed},
    mail::Messages,
};

/// The client-server and the server-server API, ready to be served.
pub fn router(app: App) -> Router {
    let families = Router::new()
        .merge(account::routes())
        .merge(account_data::routes())
        .merge(admin::routes())
        .merge(appservices::routes())
        .merge(appservices_admin::routes())
        .merge(capabilities::routes())
        .merge(create_room::routes())
        .merge(cross_signing::routes())
        .merge(dehydrated_device::routes())
        .merge(devices::routes())
        .merge(discovery::routes())
        .merge(history::routes())
        .merge(key_backup::routes())
        .merge(keys::routes())
        .merge(login::routes())
        .merge(media::routes())
        .merge(media_admin::routes())
        .merge(media_downloads::routes())
        .merge(media_previews::routes())
        .merge(media_thumbnails::routes())
        .merge(members::routes())
        .merge(mutual_rooms::routes())
        .merge(old_sync::routes())
        .merge(membership::routes())
        .merge(aliases::routes())
        .merge(reports::routes())
        .merge(room_directory::routes())
        .merge(room_state::routes())
        .merge(sliding_sync::routes())
        .merge(spaces::routes())
        .merge(filters::routes())
        .merge(profiles::routes())
        .merge(push_rules::routes())
        .merge(pushers::routes())
        .merge(receipts::routes())
        .merge(register::routes())
        .merge(relations::routes())
        .merge(search::routes())
        .merge(send::routes())
        .merge(sync::routes())
        .merge(thread_subscriptions::routes())
        .merge(threepids::routes())
        .merge(validation_requests::routes())
        .merge(validation_words::routes())
        .merge(to_device::routes())
        .merge(third_party::routes())
        .merge(typing::routes())
        .merge(voip::routes())
        .merge(user_directory::routes())
        .merge(user_export::routes())
        .merge(synapse_admin::routes())
        .merge(server_notices::routes())
        .merge(federation_api::routes())
        .merge(pages_for_people(&app));
    finish(families).with_state(app)
}

/// What people see in a browser, errors too.
fn pages_for_people(app: &App) -> Router<App> {
    Router::new()
        .merge(address_fallback::routes())
        .merge(auth_fallback::routes())
        .merge(consent::routes())
        .merge(sso::routes())
        .merge(unsubscribe_pages::routes())
        .merge(validation_pages::routes())
        .layer(middleware::from_fn_with_state(Arc::<Messages>::from_ref(app), pages::explain))
}

/// What other servers use, and nothing else: for a port of its own.
pub fn federation_router(app: App) -> Router {
    let families = Router::new().merge(federation_api::routes()).merge(discovery::server_routes());
    finish(families).with_state(app)
}

/// Adds what every answer has, errors too: CORS headers, Matrix errors for unknown endpoints and
/// wrong methods, and a 500 in place of a broken connection when a handler panics.
pub(crate) fn finish<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .fallback(async || ApiError::unknown_endpoint())
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(cors))
}

/// Routes taken from ruma's metadata, so that no path is spelled twice.
pub(crate) trait MatrixRouter<S> {
    /// Serves `handler` on every path, stable and unstable, of the request type it takes last.
    fn matrix<H, A>(self, handler: H) -> Self
    where
        H: Endpoint<A, S>,
        A: 'static;
}

impl<S: Clone + Send + Sync + 'static> MatrixRouter<S> for Router<S> {
    fn matrix<H, A>(self, handler: H) -> Self
    where
        H: Endpoint<A, S>,
        A: 'static,
    {
        let method = MethodFilter::try_from(<H::Request as Metadata>::METHOD)
            .expect("ruma's endpoints use standard methods");
        let paths: BTreeSet<_> =
            H::Request::PATH_BUILDER.all_paths().flat_map(served_paths).collect();
        paths.iter().fold(self, |router, path| router.route(path, on(method, handler.clone())))
    }
}

/// A handler whose last argument is a [`Matrix`], a [`Signed`] or a [`Streamed`] request.
pub(crate) trait Endpoint<A, S>: Handler<A, S> {
    /// The request type that names the endpoint.
    type Request: IncomingRequest;
}

macro_rules! endpoint {
    ($($argument:ident),*) => {
        endpoint!(Matrix: $($argument),*);
        endpoint!(Signed: $($argument),*);
        endpoint!(Streamed: $($argument),*);
    };
    ($last:ident: $($argument:ident),*) => {
        impl<H, S, M, R, $($argument),*> Endpoint<(M, $($argument,)* $last<R>,), S> for H
        where
            H: Handler<(M, $($argument,)* $last<R>,), S>,
            R: IncomingRequest,
        {
            type Request = R;
        }
    };
}

endpoint!();
endpoint!(A1);
endpoint!(A1, A2);
endpoint!(A1, A2, A3);
endpoint!(A1, A2, A3, A4);
endpoint!(A1, A2, A3, A4, A5);
endpoint!(A1, A2, A3, A4, A5, A6);

/// A ruma path as axum paths.
///
/// Parameters are numbered instead of named, because endpoints that share a path name them
/// differently. A state key may be empty, with or without the slash before it.
fn served_paths(template: &str) -> Vec<String> {
    let mut number = 0;
    let numbered: Vec<String> = template
        .split('/')
        .map(|segment| {
            if !segment.starts_with('{') {
                return segment.to_owned();
            }
            number += 1;
            format!("{{{number}}}")
        })
        .collect();
    let mut paths = vec![numbered.join("/")];
    if template.ends_with("/{state_key}") {
        let keyless = numbered[..numbered.len() - 1].join("/");
        paths.push(format!("{keyless}/"));
        paths.push(keyless);
    }
    paths
}

/// Specification: client-server API, "Web Browser Clients".
async fn cors(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response() // "MUST NOT perform any logic"
    } else {
        next.run(request).await
    };
    allow_browsers(response.headers_mut());
    response
}

fn allow_browsers(headers: &mut HeaderMap) {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
    ];
    for (name, value) in allowed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)");
    tracing::error!(panic = message, "a handler panicked");
    ApiError::unknown().into_response()
}
