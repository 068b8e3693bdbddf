//! Waits for the signals that a broker handles.

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

/// Waits for SIGHUP repeatedly: an operator sends it after changing files. It exists only on Unix.
#[derive(Debug)]
pub struct Hangups(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangups {
    /// Handles SIGHUP from now on, so that it does not end the process.
    ///
    /// # Errors
    /// The system refuses the handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(
            #[cfg(unix)]
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        ))
    }

    /// Waits for the next signal. All signals since the last call count as one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}

/// Handles SIGUSR1 and SIGUSR2 from now on, so that they do not end the process: scripts for Mosquitto send them. They have no
/// other effect.
/// # Errors
/// The system refuses the handlers.
pub fn ignore_user_signals() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // The handlers stay installed when their streams are dropped.
        drop(signal(SignalKind::user_defined1())?);
        drop(signal(SignalKind::user_defined2())?);
    }
    Ok(())
}
