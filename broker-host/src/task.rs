//! Serves connections over any stream of tokio, each in a separate task.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

#[cfg(unix)]
use mqtt_broker::ConnectionId;
use mqtt_broker::Hooks;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::link::{LINGER, Link, READ, ServeResult, Wire};
use crate::listener::Accepted;
use crate::peer::Peer;
use crate::shared::{Shared, wake_after_poll};
use crate::staged::Staged;

/// Spawns a task that serves a connection of a listener.
pub(crate) fn spawn_accepted<H: Hooks + 'static>(
    shared: &Rc<RefCell<Shared<H>>>,
    accepted: Accepted,
    peer: Peer,
    staged: Option<Box<Staged>>,
) {
    let panics = Rc::clone(&shared.borrow().panics);
    let shared = Rc::clone(shared);
    match accepted {
        Accepted::Tcp(stream) => panics.spawn(connection(shared, stream, peer, staged)),
        #[cfg(unix)]
        Accepted::Unix(stream) => panics.spawn(connection(shared, stream, peer, staged)),
    }
}

/// Serves one client until its connection has ended.
pub(crate) fn connection<H: Hooks, T: AsyncRead + AsyncWrite + Unpin>(
    shared: Rc<RefCell<Shared<H>>>,
    transport: T,
    peer: Peer,
    staged: Option<Box<Staged>>,
) -> impl Future<Output = ()> {
    let id = shared.borrow_mut().open(peer);
    let mut task = id.map(|id| Task {
        shared,
        link: Link::new(id),
        transport,
        staged,
        lingers: None,
    });
    // If there is no room for the connection, the future is ready at once and the transport is closed.
    poll_fn(move |cx| task.as_mut().map_or(Poll::Ready(()), |task| task.poll(cx)))
}

/// Serves an open link to another shard until it has ended.
#[cfg(unix)]
pub(crate) fn linked<H: Hooks, T: AsyncRead + AsyncWrite + Unpin>(
    shared: Rc<RefCell<Shared<H>>>,
    transport: T,
    id: ConnectionId,
) -> impl Future<Output = ()> {
    let mut task = Task {
        shared,
        link: Link::new(id),
        transport,
        staged: None,
        lingers: None,
    };
    poll_fn(move |cx| task.poll(cx))
}

/// A connection with a separate task.
struct Task<H: Hooks, T> {
    shared: Rc<RefCell<Shared<H>>>,
    link: Link,
    transport: T,
    staged: Option<Box<Staged>>,
    /// The timer of an ended connection that waits for the client to close.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl<H: Hooks, T> Drop for Task<H, T> {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        // After a panic the state of the broker is not known.
        if !shared.panics.has_happened() && !std::thread::panicking() {
            shared.closed(self.link.id);
        }
    }
}

impl<H: Hooks, T: AsyncRead + AsyncWrite + Unpin> Task<H, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.shared.borrow_mut();
        if shared.panics.has_happened() {
            return Poll::Ready(());
        }
        shared.set_waker(self.link.id, cx.waker());
        let mut wire = Polled {
            transport: &mut self.transport,
            cx,
        };
        let result = match &mut self.staged {
            None => self.link.serve(&mut shared, &mut wire, READ),
            Some(staged) => {
                let peers = shared.peers.clone();
                let mut wire = staged.over(&mut wire, self.link.id, &peers);
                let result = self.link.serve(&mut shared, &mut wire, READ);
                staged.log_failure(self.link.id, &peers);
                match result {
                    ServeResult::Waits if std::mem::take(&mut staged.has_more) => {
                        ServeResult::HasMore
                    }
                    result => result,
                }
            }
        };
        drop(shared);
        match result {
            ServeResult::Waits => {}
            // A connection with a task stays in its shard.
            ServeResult::HasMore | ServeResult::BelongsTo(_) => wake_after_poll(cx),
            ServeResult::Over => return Poll::Ready(()),
            ServeResult::Lingers | ServeResult::LingersOn => {
                if result == ServeResult::LingersOn {
                    wake_after_poll(cx);
                }
                let sleep = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                return sleep.as_mut().poll(cx);
            }
        }
        Poll::Pending
    }
}

pub(crate) struct Polled<'a, 'c, T> {
    pub(crate) transport: &'a mut T,
    pub(crate) cx: &'a mut Context<'c>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for Polled<'_, '_, T> {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(space);
        ready!(Pin::new(&mut *self.transport).poll_read(self.cx, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport).poll_write(self.cx, bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport).poll_write_vectored(self.cx, slices)
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport).poll_shutdown(self.cx)
    }
}
