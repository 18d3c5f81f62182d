//! `millrace serve`: the homeserver itself.

use std::{net::SocketAddr, path::Path};

use axum::extract::FromRef;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    app::{self, App},
    client_api::router,
    config,
    departures::Departures,
    serve::{self, BindError, Port},
    shutdown,
    tls::Tls,
    tls_files::TlsFileError,
};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no usable configuration.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no TLS to serve other servers with.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// A part of the server could not be built.
    #[error(transparent)]
    Start(#[from] app::StartError),
    /// Signals cannot be received.
    #[error("signals cannot be handled: {0}")]
    Signal(std::io::Error),
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// A sentence that says why the server did not start.
pub async fn run(file: &Path) -> Result<(), ServeError> {
    let config::Loaded { config, unknown } = config::load(Some(file))?;
    crate::tracing_setup::start(&config.log);
    for key in unknown {
        tracing::warn!("{key}");
    }
    let listeners = bind_all(config.server.listen_on()).await?;
    let tls = config.federation.tls_files().map(|(certificate, key)| Tls::load(certificate, key));
    let tls = tls.transpose()?;
    let federation = bind_all(config.federation_on()).await?;
    let (trigger, shutdown) = shutdown::channel();
    let app = App::start(&config, shutdown.clone()).await?;
    stop_on_signal(trigger)?;
    tokio::spawn(Departures::from_ref(&app).resume());
    let server_name = &config.server.server_name;
    for address in listeners.iter().flat_map(TcpListener::local_addr) {
        tracing::info!(server_name, "listening on http://{address}");
    }
    for address in federation.iter().flat_map(TcpListener::local_addr) {
        tracing::info!(server_name, "listening to other servers on https://{address}");
    }
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().follow(shutdown.clone()));
    }
    let all = router::router(app.clone());
    let ports =
        listeners.into_iter().map(|listener| Port { listener, router: all.clone(), tls: None });
    let for_servers = router::federation_router(app.clone());
    let ports = ports.chain(federation.into_iter().map(|listener| Port {
        listener,
        router: for_servers.clone(),
        tls: tls.clone(),
    }));
    let connections_max = config.limits.limits.connections_max;
    serve::serve(ports.collect(), shutdown, connections_max).await;
    app.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn bind_all(
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(serve::bind(address).await?);
    }
    Ok(listeners)
}

fn stop_on_signal(trigger: shutdown::ShutdownTrigger) -> Result<(), ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; running requests are finished first");
        trigger.request();
        interrupt.recv().await;
        tracing::warn!("asked twice to stop: running requests are dropped");
        // What was acknowledged is on disk already, so leaving at once loses nothing.
        std::process::exit(130);
    });
    Ok(())
}
