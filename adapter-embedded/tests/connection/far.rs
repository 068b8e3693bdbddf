//! The other end of the transport: a server, and faults of the transport.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use mqtt_embedded::Clock;
use mqtt_embedded::proto::{ConnAck, Connect, List, QoS, ReasonCode, SubAck, TopicName, Version};
use mqtt_embedded::session::{Config, Heap, Instant, Outgoing, Server, ServerEvent, Step};

/// A clock that advances during idling and, a little, during reads.
#[derive(Clone, Default)]
pub(crate) struct Time(Rc<Cell<u64>>);

impl Time {
    pub(crate) fn pass(&self, millis: u64) {
        self.0.set(self.0.get() + millis);
    }

    pub(crate) fn get(&self) -> Instant {
        Instant::from_millis(self.0.get())
    }
}

impl Clock for Time {
    fn now(&mut self) -> Instant {
        self.get()
    }

    fn idle(&mut self, until: Option<Instant>) {
        let until = until.expect("something is due, or the test waits for ever");
        self.0.set(until.as_millis().max(self.0.get() + 1));
    }
}

/// A fault of a read or write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Odd {
    Nothing,
    Fails(ErrorKind),
}

pub(crate) struct Inner {
    pub(crate) server: Server<'static>,
    from_device: Vec<u8>,
    pub(crate) to_device: VecDeque<u8>,
    /// How many bytes one read or write takes at most.
    pub(crate) most: usize,
    pub(crate) reads: VecDeque<Odd>,
    pub(crate) writes: VecDeque<Odd>,
    pub(crate) unflushed: usize,
    pub(crate) flushes: usize,
    pub(crate) heard: Vec<String>,
    pub(crate) pings: usize,
    /// Whether the server receives nothing any more.
    pub(crate) deaf: bool,
    has_session: bool,
    time: Time,
}

/// The transport, and the server at its end.
#[derive(Clone)]
pub(crate) struct Far(pub(crate) Rc<RefCell<Inner>>);

pub(crate) const TOPIC: TopicName<'static> = TopicName::from_static("a/b");

pub(crate) fn connect(version: Version) -> Connect<'static> {
    Connect {
        clean_start: false,
        keep_alive: 10,
        ..Connect::new(version, "device")
    }
}

pub(crate) fn message(qos: QoS, payload: &[u8]) -> Outgoing<'_> {
    Outgoing::new(TOPIC, qos, payload)
}

impl Far {
    pub(crate) fn new(time: &Time, most: usize) -> Self {
        let mut server = Server::new(Config::default(), Heap);
        server.opened(time.get());
        Self(Rc::new(RefCell::new(Inner {
            server,
            from_device: Vec::new(),
            to_device: VecDeque::new(),
            most,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            unflushed: 0,
            flushes: 0,
            heard: Vec::new(),
            pings: 0,
            deaf: false,
            has_session: false,
            time: time.clone(),
        })))
    }

    /// Replaces the transport by a new one. Both sides keep their sessions.
    pub(crate) fn reopen(&self) {
        let mut inner = self.0.borrow_mut();
        let now = inner.time.get();
        inner.server.disconnected();
        inner.server.opened(now);
        inner.to_device.clear();
        inner.from_device.clear();
    }

    pub(crate) fn publish(&self, qos: QoS, payload: &[u8]) {
        let mut inner = self.0.borrow_mut();
        inner.server.publish(&message(qos, payload)).unwrap();
        inner.serve();
    }

    pub(crate) fn say(&self, bytes: &[u8]) {
        self.0.borrow_mut().to_device.extend(bytes);
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut().heard)
    }
}

impl Inner {
    fn serve(&mut self) {
        let now = self.time.get();
        if self.deaf {
            return;
        }
        while let Step::Packet { consumed, event } =
            self.server.receive(&self.from_device, now).unwrap()
        {
            let (mut accept, mut suback) = (None, None);
            match event {
                Some(ServerEvent::Connect(connect)) => accept = Some(connect.clean_start),
                Some(ServerEvent::Message(message)) => self
                    .heard
                    .push(String::from_utf8(message.publish.payload.to_vec()).unwrap()),
                Some(ServerEvent::Subscribe(subscribe)) => suback = Some(subscribe.packet_id),
                Some(ServerEvent::Ping) => self.pings += 1,
                _ => {}
            }
            self.from_device.drain(..consumed);
            if let Some(clean) = accept {
                let session_present = std::mem::replace(&mut self.has_session, true) && !clean;
                let connack = ConnAck {
                    session_present,
                    ..ConnAck::default()
                };
                self.server.accept(&connack, now).unwrap();
            }
            if let Some(packet_id) = suback {
                let codes: List<'_, ReasonCode> = (&[ReasonCode::GrantedQoS2]).into();
                let suback = SubAck {
                    packet_id,
                    codes,
                    properties: Default::default(),
                };
                self.server.subscribed(&suback).unwrap();
            }
        }
        let bytes = self.server.outgoing().to_vec();
        self.server.sent(bytes.len());
        self.to_device.extend(bytes);
    }

    pub(crate) fn take_read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        match self.reads.pop_front() {
            Some(Odd::Nothing) => return Ok(0),
            Some(Odd::Fails(kind)) => return Err(kind),
            None => {}
        }
        let n = buffer.len().min(self.most).min(self.to_device.len());
        for (place, byte) in buffer.iter_mut().zip(self.to_device.drain(..n)) {
            *place = byte;
        }
        self.time.pass(1);
        Ok(n)
    }

    pub(crate) fn take_write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        assert!(!bytes.is_empty(), "nobody writes nothing");
        match self.writes.pop_front() {
            Some(Odd::Nothing) => return Ok(0),
            Some(Odd::Fails(kind)) => return Err(kind),
            None => {}
        }
        let n = bytes.len().min(self.most);
        self.from_device.extend(&bytes[..n]);
        self.unflushed += n;
        Ok(n)
    }

    pub(crate) fn take_flush(&mut self) {
        self.flushes += 1;
        self.unflushed = 0;
        // Bytes that are not flushed have not arrived.
        self.serve();
    }
}

/// Pending until bytes arrive.
impl embedded_io_async::Read for Far {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        poll_fn(|_| match ReadReady::read_ready(self) {
            Ok(false) => Poll::Pending,
            _ => Poll::Ready(Read::read(self, buffer)),
        })
        .await
    }
}

impl embedded_io_async::Write for Far {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        Write::write(self, bytes)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Write::flush(self)
    }
}

impl ErrorType for Far {
    type Error = ErrorKind;
}

impl ReadReady for Far {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        let inner = self.0.borrow();
        Ok(!inner.to_device.is_empty() || !inner.reads.is_empty())
    }
}

impl Read for Far {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.borrow_mut().take_read(buffer)
    }
}

impl Write for Far {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.borrow_mut().take_write(bytes)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.0.borrow_mut().take_flush();
        Ok(())
    }
}
