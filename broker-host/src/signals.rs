//! The signals that end a broker.

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
