//! What the commands do with a connection: open it, watch it, end it on Ctrl-C.

use std::time::Duration;

use adapter_tokio::{Handle, Options};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::{Failure, fail};
use crate::tap::{Tap, Watcher, to_stderr};

/// Begins to connect.
pub(crate) fn start(options: Options, debug: bool) -> Handle {
    start_watched(options, move || {
        debug.then(|| Box::new(to_stderr) as Watcher)
    })
}

/// The same with a watcher for each connection.
pub(crate) fn start_watched(
    options: Options,
    mut watcher: impl FnMut() -> Option<Watcher> + Send + 'static,
) -> Handle {
    let (address, version) = ((options.host.clone(), options.port), options.version);
    Handle::start_with(options, move || {
        let address = address.clone();
        let watcher = watcher();
        async move {
            let transport = TcpStream::connect(address).await?;
            transport.set_nodelay(true)?;
            Ok(Tap::new(transport, version, watcher))
        }
    })
}

/// Tells of lost connections, and ends when one stays lost for longer than `patience`, if there is such a limit.
pub(crate) async fn watch(handle: &Handle, patience: Option<Duration>, quiet: bool) -> Failure {
    loop {
        let why = handle.disconnected().await;
        if !quiet {
            eprintln!("mqtt: connection lost: {why}; reconnecting");
        }
        let again = handle.connected();
        match patience {
            None => {
                if let Err(error) = again.await {
                    return fail(error);
                }
            }
            Some(patience) => match timeout(patience, again).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return fail(error),
                Err(_) => {
                    let why = handle.disconnected().await;
                    return fail(format!(
                        "the connection did not come back within {} s: {why}",
                        patience.as_secs_f32()
                    ));
                }
            },
        }
        if !quiet {
            eprintln!("mqtt: connected again");
        }
    }
}

/// Ends on Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
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

/// How long a goodbye may take.
pub(crate) const GOODBYE: Duration = Duration::from_secs(5);
