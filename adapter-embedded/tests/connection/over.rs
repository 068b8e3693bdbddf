//! A connection that is over on a line that is only silent afterwards: the next step says why, and does not wait.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_io::ErrorKind;
use mqtt_embedded::proto::{Disconnect, QoS, ReasonCode, Version};
use mqtt_embedded::session::{Config, Event};
use mqtt_embedded::{Buffers, Error, Over, SessionError, asynch, blocking};

use crate::far::{Far, Time, connect};

type Memory = Buffers<64, 192, 192, 4>;

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];

fn over(why: Over) -> Error<ErrorKind> {
    SessionError::Over(why).into()
}

/// Polls a future until it is ready. Time does not pass.
fn soon<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("it waits for ever");
}

/// Connects to a server that says these bytes, and takes steps until an error. Returns it, and how many events came before. The
/// program sends DISCONNECT after so many events.
fn ends(version: Version, said: &[u8], disconnect_after: usize) -> [(Error<ErrorKind>, usize); 2] {
    macro_rules! ends {
        ($kind:ident, $wait:expr) => {{
            let time = Time::default();
            let far = Far::new(&time, 100);
            far.0.borrow_mut().deaf = true;
            far.say(said);
            let mut buffers = Memory::new();
            let (mut client, input) = buffers.client(Config::default());
            let connect = connect(version);
            let transport = far.clone();
            let connection = $kind::Connection::new(transport, &mut client, input, time, &connect);
            let (mut connection, mut events) = (connection.unwrap(), 0);
            let why = loop {
                match $wait(connection.next()) {
                    Ok((event, _)) => events += usize::from(event.is_some()),
                    Err(why) => break why,
                }
                if events == disconnect_after {
                    let _ = connection.client().disconnect(&Disconnect::default());
                }
            };
            // Bytes that are left in the buffer are dropped first.
            let again = core::iter::repeat_with(|| $wait(connection.next()).map(|_| ()));
            let again = again.take(2).find_map(Result::err);
            let expected = match why {
                Error::Session(SessionError::Over(_)) => why,
                _ => over(Over::Closed),
            };
            assert_eq!(again, Some(expected));
            assert_eq!(far.0.borrow().unflushed, 0);
            (why, events)
        }};
    }
    [
        ends!(blocking, core::convert::identity),
        ends!(asynch, soon),
    ]
}

#[test]
fn a_refused_connection_is_over() {
    let why = Over::Refused(ReasonCode::ServerBusy);
    let said = [0x20, 3, 0, 0x89, 0];
    assert_eq!(ends(Version::V5, &said, 9), [(over(why), 1); 2]);
    let why = Over::Refused(ReasonCode::ServerUnavailable);
    assert_eq!(
        ends(Version::V311, &[0x20, 2, 0, 3], 9),
        [(over(why), 1); 2]
    );
}

#[test]
fn a_connection_that_the_server_ends_is_over() {
    // What follows DISCONNECT is not read.
    let said = [CONNACK, &[0xE0, 1, 0x8B, 0xD0, 0]].concat();
    let why = Over::Disconnected(ReasonCode::ServerShuttingDown);
    assert_eq!(ends(Version::V5, &said, 9), [(over(why), 2); 2]);
}

#[test]
fn a_connection_that_the_program_ends_is_over() {
    let why = Over::Closed;
    assert_eq!(ends(Version::V5, CONNACK, 1), [(over(why), 1); 2]);
}

/// After an error of the session no step waits, also if bytes are left behind the one that was wrong.
#[test]
fn a_connection_is_over_after_a_violation() {
    let said = [CONNACK, b"\0\0NO CARRIER"].concat();
    for (why, events) in ends(Version::V5, &said, 9) {
        assert!(
            matches!(why, Error::Session(SessionError::Violation(_))),
            "{why:?}"
        );
        assert_eq!(events, 1);
    }
}

/// The future of an asynchronous device is dropped while it stores the rest of its session. The next call returns the error, although
/// the line is silent.
#[cfg(feature = "flash")]
#[test]
fn dropping_futures_does_not_lose_the_error() {
    use crate::far::message;
    use crate::nor::{Nor, Slow};
    use mqtt_embedded::proto::Connect;
    use mqtt_embedded::session::{Durable, Violation};

    let time = Time::default();
    let (far, nor) = (Far::new(&time, 100), Nor::new(3));
    let range = 0..nor.pages();
    let mut flash = asynch::Flash::<_, 128, 11>::new(Slow(nor.clone()), range).unwrap();
    let mut buffers = Buffers::<64, 192, 192, 4, 280>::with_journal();
    let (mut client, input) = buffers.client(Config::default());
    soon(flash.restore(&mut client)).unwrap();
    client.set_durable(Durable::WhenOffline(u32::MAX));
    let connect = Connect {
        clean_start: true,
        ..connect(Version::V311)
    };
    let transport = far.clone();
    let connection =
        asynch::Connection::new(transport, &mut client, input, time.clone(), &connect).unwrap();
    let mut connection = connection.with_flash(&mut flash);
    let (event, _) = soon(connection.next()).unwrap();
    assert!(matches!(event, Some(Event::Connected { .. })), "{event:?}");
    far.0.borrow_mut().deaf = true;
    for _ in 0..2 {
        let now = connection.now();
        let reading = message(QoS::AtLeastOnce, b"21.5");
        connection.client().publish(&reading, now).unwrap();
    }
    soon(connection.flush()).unwrap();
    let before = nor.wear();
    while nor.wear() == before {
        time.pass(1_000);
        let next = pin!(connection.next());
        let stepped = next.poll(&mut Context::from_waker(Waker::noop()));
        assert!(
            stepped.is_pending(),
            "the future is dropped while it stores"
        );
        assert!(time.get().as_millis() < 100_000, "it waits for ever");
    }
    let why = soon(connection.next()).map(|_| ()).unwrap_err();
    let timeout = Violation::PingTimeout;
    assert_eq!(why, Error::Session(SessionError::Violation(timeout)));
}
