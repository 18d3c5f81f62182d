//! From the start to the end of the process.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    apps::AppError,
    config::{Config, LogFormat},
    gateway::Gateway,
    router,
};

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An app cannot be set up.
    #[error(transparent)]
    App(#[from] AppError),
    /// An address cannot be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Signals cannot be received, or connections not be taken.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Serves until the process is asked to stop, and finishes what was accepted.
///
/// # Errors
/// Where it cannot start.
pub async fn run(config: &Config) -> Result<(), ServeError> {
    start_log(config);
    let gateway = Arc::new(Gateway::new(config)?);
    let listener = listen(config.address).await?;
    let (stop, stopped) = watch::channel(false);
    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    if let Some(address) = config.metrics_address {
        let serving = axum::serve(listen(address).await?, router::metrics(Arc::clone(&gateway)))
            .with_graceful_shutdown(until_stopped(stopped.clone()));
        tokio::spawn(serving.into_future());
    }
    tracing::info!(address = %config.address, apps = config.apps.len(), "the gateway is ready");
    let serving = axum::serve(listener, router::public(Arc::clone(&gateway)))
        .with_graceful_shutdown(until_stopped(stopped));
    let mut serving = tokio::spawn(serving.into_future());
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        ended = &mut serving => return Ok(ended.map_err(io::Error::other)??),
    }
    tracing::info!("the gateway is stopping");
    gateway.stop();
    stop.send_replace(true);
    let within = std::time::Duration::from_secs(config.shutdown_s);
    if timeout(within, serving).await.is_err() {
        tracing::warn!("calls were not answered in time");
    }
    if !gateway.drained(within).await {
        tracing::warn!("accepted notifications were not delivered in time");
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| ServeError::Listen { address, source })
}

fn start_log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call changes nothing.
    let _ = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
