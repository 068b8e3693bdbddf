use core::future::poll_fn;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use mqtt_embedded::asynch::Connection;
use mqtt_embedded::proto::{QoS, Version};
use mqtt_embedded::session::{Config, Event, Instant, Violation};
use mqtt_embedded::{Buffers, EmbassyTime, Error, SessionError, Timer};

use crate::far::{Far, Time, connect, message};

/// A transport that is pending at every other poll.
struct Slow {
    far: Far,
    ready: bool,
}

impl Slow {
    /// Returns whether this is the second poll.
    fn poll(&mut self) -> bool {
        self.ready = !self.ready;
        !self.ready
    }
}

impl ErrorType for Slow {
    type Error = ErrorKind;
}

impl Read for Slow {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        poll_fn(|_| {
            if self.far.0.borrow().to_device.is_empty() || !self.poll() {
                return Poll::Pending;
            }
            Poll::Ready(self.far.0.borrow_mut().take_read(buffer))
        })
        .await
    }
}

impl Write for Slow {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        poll_fn(|_| {
            if !self.poll() {
                return Poll::Pending;
            }
            Poll::Ready(self.far.0.borrow_mut().take_write(bytes))
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        poll_fn(|_| {
            if self.poll() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.far.0.borrow_mut().take_flush();
        Ok(())
    }
}

impl Timer for Time {
    fn now(&mut self) -> Instant {
        self.get()
    }

    async fn until(&mut self, at: Option<Instant>) {
        poll_fn(|_| match at {
            Some(at) if at <= self.get() => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}

/// Polls a future once and drops it.
fn once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

type Memory = Buffers<64, 192, 192, 4>;

/// Every future is dropped each time it is pending. Nothing is lost, and nothing happens twice.
#[test]
fn dropping_futures_loses_nothing() {
    for (version, most) in [Version::V311, Version::V5]
        .into_iter()
        .flat_map(|v| [1, 5, 100].map(|m| (v, m)))
    {
        let time = Time::default();
        let far = Far::new(&time, most);
        let slow = Slow {
            far: far.clone(),
            ready: false,
        };
        let mut buffers = Memory::new();
        let (mut client, input) = buffers.client(Config::default());
        let options = connect(version);
        let mut connection = Connection::new(slow, &mut client, input, time, &options).unwrap();
        let (mut dropped, mut acknowledged, mut messages) = (0, 0, Vec::new());
        while acknowledged < 10 || messages.len() < 10 {
            let now = connection.now();
            match once(connection.next()) {
                None => dropped += 1,
                Some(Err(error)) => panic!("{error}"),
                Some(Ok((event, client))) => match event {
                    Some(Event::Connected { .. }) => {
                        client
                            .publish(&message(QoS::ExactlyOnce, b"0"), now)
                            .unwrap();
                    }
                    Some(Event::Acknowledged { .. }) => {
                        acknowledged += 1;
                        let payload = [b'0' + acknowledged];
                        if acknowledged < 10 {
                            client
                                .publish(&message(QoS::ExactlyOnce, &payload), now)
                                .unwrap();
                        }
                        far.publish(QoS::ExactlyOnce, &payload);
                    }
                    Some(Event::Message(message)) => {
                        messages.push(message.publish.payload.to_vec())
                    }
                    _ => {}
                },
            }
        }
        assert!(dropped > 50, "{dropped}");
        assert_eq!(far.heard().concat(), "0123456789");
        assert_eq!(messages.concat(), b"123456789:");
        let mut ended = false;
        for _ in 0..20 {
            ended |= once(connection.flush()) == Some(Ok(()));
        }
        assert!(ended);
    }
}

#[test]
fn a_silent_connection_is_pinged_and_ended_without_an_answer() {
    let time = Time::default();
    let far = Far::new(&time, 100);
    let slow = Slow {
        far: far.clone(),
        ready: false,
    };
    let mut buffers = Memory::new();
    let (mut client, input) = buffers.client(Config::default());
    let options = connect(Version::V5);
    let mut connection = Connection::new(slow, &mut client, input, time.clone(), &options).unwrap();
    let mut pongs = 0;
    let why = loop {
        time.pass(100);
        match once(connection.next()) {
            Some(Ok((Some(Event::Pong), _))) => pongs += 1,
            Some(Err(error)) => break error,
            _ => {}
        }
        if pongs > 0 {
            far.0.borrow_mut().to_device.clear();
        }
        assert!(time.get().as_millis() < 100_000, "it is never noticed");
    };
    assert_eq!(pongs, 1);
    let timeout = Violation::PingTimeout;
    assert_eq!(why, Error::Session(SessionError::Violation(timeout)));
}

/// Embassy's timer ends at its time and not earlier. Without a time it never ends.
#[test]
fn the_timer_of_embassy_ends_in_time() {
    let mut timer = EmbassyTime;
    let before = Timer::now(&mut timer);
    let at = before.after(core::time::Duration::from_millis(20));
    futures_lite::future::block_on(timer.until(Some(at)));
    assert!(Timer::now(&mut timer) >= at);
    assert_eq!(once(timer.until(None)), None);
}
