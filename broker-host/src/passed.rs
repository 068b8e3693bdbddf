//! Listening sockets that another process, such as systemd, has bound and passed to this one (`LISTEN_FDS`).

use std::io;

use crate::Listener;

/// The sockets that were passed. The variables that tell of them are read once.
pub(crate) struct Passed {
    #[cfg(unix)]
    sockets: Option<listenfd::ListenFd>,
}

impl Passed {
    pub(crate) const fn new() -> Self {
        Self {
            #[cfg(unix)]
            sockets: None,
        }
    }

    /// Takes one of the sockets, counted from 0.
    #[cfg(unix)]
    pub(crate) fn take(&mut self, index: usize) -> io::Result<Listener> {
        let sockets = self
            .sockets
            .get_or_insert_with(listenfd::ListenFd::from_env);
        let none = || {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no such socket was passed (LISTEN_FDS)",
            )
        };
        // A socket of the other kind stays in the list, and can be taken by the next call.
        if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
            listener.set_nonblocking(true)?;
            return Ok(tokio::net::TcpListener::from_std(listener)?.into());
        }
        let listener = sockets.take_unix_listener(index)?.ok_or_else(none)?;
        listener.set_nonblocking(true)?;
        Ok(tokio::net::UnixListener::from_std(listener)?.into())
    }

    #[cfg(not(unix))]
    pub(crate) fn take(&mut self, _: usize) -> io::Result<Listener> {
        Err(io::Error::other("this system passes no sockets"))
    }
}
