//! The signals that a broker obeys.

/// Waits for Ctrl-C or, on Unix, SIGTERM.
///
/// ```no_run
/// # async fn example(host: mqtt_broker_host::Host<mqtt_broker_host::Guard>) -> std::io::Result<()> {
/// let listener = mqtt_broker_host::listen(([127, 0, 0, 1], 1883).into())?;
/// host.run([listener], mqtt_broker_host::signals::interrupted()).await;
/// # Ok(()) }
/// ```
pub async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminated) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Waits for SIGHUP, again and again: what an operator sends when files changed. Elsewhere than on Unix it never comes.
#[derive(Debug)]
pub struct Hangups(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangups {
    /// From now on SIGHUP does not end the process.
    ///
    /// # Errors
    /// The system refuses the handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(
            #[cfg(unix)]
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        ))
    }

    /// Waits for the next one. Those that came since the last call count as one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}

/// From now on SIGUSR1 and SIGUSR2, to which Mosquitto's scripts are used, do not end the process. Nothing else happens on them.
///
/// # Errors
/// The system refuses the handlers.
pub fn ignore_user_signals() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // The handlers stay when what they would tell is dropped.
        drop(signal(SignalKind::user_defined1())?);
        drop(signal(SignalKind::user_defined2())?);
    }
    Ok(())
}
