//! Implements a server on 127.0.0.1 that a test controls, for behaviour that a real broker does not show on demand.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_proto::{ConnAck, List, ReasonCode, SubAck, UnsubAck};
use mqtt_session::{Config, Heap, Instant, Server, ServerEvent, Step};

use super::RawServer;

/// The server's reaction to an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reaction {
    /// Accepts, grants or acknowledges, as a broker does.
    Usual,
    /// Does nothing: the script has answered, or there is no answer.
    Nothing,
    /// Writes the outgoing bytes, then cuts the connection.
    HangUp,
    /// Stops reading and writing, including the answer to this event. The connection stays open.
    Freeze,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct ScriptedServer {
    /// The port of the server.
    pub port: u16,
    server: RawServer,
}

impl ScriptedServer {
    /// Starts a server. The script gets each event of each connection before the usual answer.
    ///
    /// # Panics
    /// There is no free port.
    pub fn start<F>(script: F) -> Self
    where
        F: Fn(&ServerEvent<'_>, &mut Server<'static>) -> Reaction + Send + Sync + 'static,
    {
        let server = RawServer::start_until(move |stream, _, stop| {
            let _ = serve(&stream, &script, stop);
            let _ = stream.shutdown(Shutdown::Both);
        });
        Self {
            port: server.port,
            server,
        }
    }

    /// Returns how many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.server.connections()
    }
}

fn serve(
    mut stream: &TcpStream,
    script: &dyn Fn(&ServerEvent<'_>, &mut Server<'static>) -> Reaction,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let now = Instant::from_millis(0);
    let mut server = Server::new(Config::default(), Heap);
    server.opened(now);
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut input, mut space) = (Vec::new(), [0; 4096]);
    while !stop.load(Ordering::Relaxed) {
        let mut then = Reaction::Usual;
        while let Ok(Step::Packet { consumed, event }) = server.receive(&input, now) {
            let then_now =
                event.map_or(Reaction::Usual, |event| answer(&event, &mut server, script));
            input.drain(..consumed);
            if matches!(then_now, Reaction::HangUp | Reaction::Freeze) {
                then = then_now;
                break;
            }
        }
        if then == Reaction::Freeze {
            while !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            return Ok(());
        }
        let n = server.outgoing().len();
        stream.write_all(server.outgoing())?;
        server.sent(n);
        if then == Reaction::HangUp || server.is_closing() {
            return Ok(());
        }
        match stream.read(&mut space) {
            Ok(0) => return Ok(()),
            Ok(n) => input.extend_from_slice(&space[..n]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer(
    event: &ServerEvent<'_>,
    server: &mut Server<'static>,
    script: &dyn Fn(&ServerEvent<'_>, &mut Server<'static>) -> Reaction,
) -> Reaction {
    let then = script(event, server);
    if then != Reaction::Usual {
        return then;
    }
    let done = match event {
        ServerEvent::Connect(_) => {
            let connack = ConnAck {
                session_present: false,
                reason: ReasonCode::Success,
                properties: Default::default(),
            };
            server.accept(&connack, Instant::from_millis(0))
        }
        ServerEvent::Subscribe(subscribe) => {
            let codes: Vec<_> = subscribe
                .filters
                .iter()
                .map(|filter| ReasonCode::granted(filter.qos))
                .collect();
            server.subscribed(&SubAck::new(subscribe.packet_id, List::from(&codes[..])))
        }
        ServerEvent::Unsubscribe(unsubscribe) => {
            let codes: Vec<_> = unsubscribe
                .filters
                .iter()
                .map(|_| ReasonCode::Success)
                .collect();
            server.unsubscribed(&UnsubAck::new(
                unsubscribe.packet_id,
                List::from(&codes[..]),
            ))
        }
        _ => Ok(()),
    };
    if done.is_ok() {
        Reaction::Usual
    } else {
        Reaction::HangUp
    }
}
