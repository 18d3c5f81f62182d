//! What goes on in the background: parts that have a worker are built here and begin to work, until the
//! server stops.

use std::{sync::Arc, time::Duration};

use millrace_appservices::{self as appservices, AppServices, SharedRegistry};
use millrace_domain::{
    Env,
    deliveries::Deliveries,
    ephemeral::EphemeralClock,
    presence::{Presence, PresenceSettings},
    rooms::Rooms,
    typing::Typing,
    unread::Unreads,
};
use millrace_federation::{Federation, Outbound, inbound::Inbound};
use millrace_media::{
    Media,
    storage::{Bucket, Folder, Storage},
};
use millrace_pushers::Pushers;
use millrace_search::{OpenError, Search, index::Place};

use super::{StartError, settings::outbound_settings};
use crate::{
    config::Config,
    mail::Digests,
    media_sources::MediaSources,
    push_gateways::PushGateways,
    shutdown::Shutdown,
    sso::{ProviderError, client_builder},
    tls_files,
};

/// How long the service that keeps media may be silent.
const BUCKET_PATIENCE: Duration = Duration::from_secs(30);

/// Starts the workers of what comes in from other servers.
pub(super) fn take_in(shutdown: &Shutdown, inbound: &Arc<Inbound>) {
    run_until(shutdown, Arc::clone(inbound), |inbound| async move {
        inbound.run_device_lists().await;
    });
    run_until(shutdown, Arc::clone(inbound), |inbound| async move { inbound.run().await });
    run_until(shutdown, Arc::clone(inbound), Inbound::run_partial_rooms);
}

/// Who is typing and who is there, each looked after until the shutdown.
pub(super) fn ephemeral(
    config: &Config,
    env: &Env,
    moments: &Arc<EphemeralClock>,
    shutdown: &Shutdown,
) -> (Arc<Typing>, Arc<Presence>) {
    let longest = Duration::from_secs(config.limits.limits.typing_timeout_max_s);
    let typing = Arc::new(Typing::new(env.clone(), Arc::clone(moments), longest));
    let enabled = config.presence.allow_local_presence;
    let settings = PresenceSettings { enabled, ..PresenceSettings::default() };
    let presence = Arc::new(Presence::new(env.clone(), Arc::clone(moments), settings));
    run_until(shutdown, Arc::clone(&typing), |typing| async move { typing.run().await });
    run_until(shutdown, Arc::clone(&presence), |presence| async move { presence.run().await });
    (typing, presence)
}

/// Begins to note how far messages have come.
pub(super) fn deliveries(config: &Config, rooms: &Rooms, shutdown: &Shutdown) -> Arc<Deliveries> {
    let deliveries = Deliveries::new(rooms.clone(), config.delivery.settings());
    run_until(shutdown, Arc::clone(&deliveries), Deliveries::run);
    deliveries
}

/// Begins to tell other servers what happens here.
pub(super) fn outbound(
    config: &Config,
    federation: &Federation,
    (typing, presence, deliveries): (Arc<Typing>, Arc<Presence>, Arc<Deliveries>),
    shutdown: &Shutdown,
) -> Arc<Outbound> {
    let settings = outbound_settings(config);
    let outbound = Outbound::new(federation.clone(), settings, typing, presence, deliveries);
    let outbound = Arc::new(outbound);
    run_until(shutdown, Arc::clone(&outbound), Outbound::run);
    outbound
}

/// Opens the application services, and begins to send to them.
pub(super) async fn services(
    config: &Config,
    registry: SharedRegistry,
    (rooms, (typing, presence)): (&Rooms, (Arc<Typing>, Arc<Presence>)),
    shutdown: &Shutdown,
) -> Result<Arc<AppServices>, StartError> {
    let services = AppServices::open(appservices::Parts {
        registry,
        rooms: rooms.clone(),
        typing,
        presence,
        client: service_client(config)?,
        settings: config.appservices.settings(),
    });
    let services = Arc::new(services.await?);
    run_until(shutdown, Arc::clone(&services), AppServices::run);
    Ok(services)
}

/// Opens the search index and begins to follow the store.
pub(super) async fn search(
    rooms: &Rooms,
    index: Place,
    shutdown: &Shutdown,
) -> Result<Arc<Search>, OpenError> {
    let search = Arc::new(Search::open(rooms.clone(), index).await?);
    run_until(shutdown, Arc::clone(&search), Search::run);
    Ok(search)
}

/// Begins to send notifications.
pub(super) fn pushers(
    config: &Config,
    (rooms, unreads): (&Rooms, &Arc<Unreads>),
    (gateways, digests): (PushGateways, Digests),
    shutdown: &Shutdown,
) -> Arc<Pushers> {
    let (gateways, digests) = (Arc::new(gateways), Arc::new(digests));
    let settings = config.push.settings();
    let pushers = Pushers::new(rooms.clone(), Arc::clone(unreads), gateways, digests, settings);
    let pushers = Arc::new(pushers);
    run_until(shutdown, Arc::clone(&pushers), Pushers::run);
    pushers
}

/// Opens the media repository, and begins to look after it.
pub(super) async fn media(
    config: &Config,
    env: &Env,
    federation: &Federation,
    shutdown: &Shutdown,
) -> Result<Media, StartError> {
    let database = &config.database.database_path;
    let storage: Arc<dyn Storage> = match bucket(config)? {
        Some(bucket) => {
            bucket.check().await?;
            Arc::new(bucket)
        }
        None => Arc::new(Folder::new(config.media.folder(database).join("files"))),
    };
    let sources = Arc::new(MediaSources(federation.clone()));
    let settings = config.media.settings(database);
    let media = Media::new(env.clone(), settings, storage, sources);
    run_until(shutdown, Arc::new(media.clone()), |media| async move { media.run().await });
    Ok(media)
}

/// How application services are asked: where the administrator says they are.
fn service_client(config: &Config) -> Result<reqwest::Client, StartError> {
    let authorities = tls_files::authorities(config.federation.federation_ca_file.as_deref())?;
    let client = client_builder(authorities)?.no_proxy();
    let client = client.redirect(reqwest::redirect::Policy::none()).build();
    Ok(client.map_err(|error| ProviderError::Setup(error.to_string()))?)
}

/// The bucket of media, where one is configured.
fn bucket(config: &Config) -> Result<Option<Bucket>, StartError> {
    let Some(settings) = config.media.s3.settings() else { return Ok(None) };
    let authorities = tls_files::authorities(config.federation.federation_ca_file.as_deref())?;
    let client = client_builder(authorities)?.redirect(reqwest::redirect::Policy::none());
    // A file may be large: it is not the whole that has to come in time, but the next of it.
    let client = client.connect_timeout(BUCKET_PATIENCE).read_timeout(BUCKET_PATIENCE).build();
    let client = client.map_err(|error| ProviderError::Setup(error.to_string()))?;
    Ok(Some(Bucket::new(&settings, client)?))
}

/// Starts a worker that ends with the server.
pub(super) fn run_until<T, F>(shutdown: &Shutdown, part: Arc<T>, work: impl FnOnce(Arc<T>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (work, shutdown) = (work(part), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = shutdown.requested() => {}
        }
    });
}
