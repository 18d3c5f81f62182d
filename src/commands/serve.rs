//! `millrace serve`: the homeserver itself.

use std::path::Path;

use axum::extract::FromRef;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{self, App},
    client_api, config, departures,
    serve::{self, BindError},
    shutdown,
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
    let mut listeners = Vec::new();
    for address in config.server.listen_on() {
        listeners.push(serve::bind(address).await?);
    }
    let (trigger, shutdown) = shutdown::channel();
    let app = App::start(&config, shutdown.clone()).await?;
    stop_on_signal(trigger)?;
    tokio::spawn(departures::resume(FromRef::from_ref(&app), FromRef::from_ref(&app)));
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(
                server_name = config.server.server_name,
                "listening on http://{address}"
            );
        }
    }
    let connections_max = config.limits.limits.connections_max;
    serve::serve(listeners, client_api::router::router(app.clone()), shutdown, connections_max)
        .await;
    app.close().await;
    tracing::info!("stopped");
    Ok(())
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
