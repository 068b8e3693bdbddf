//! A device that is reset between two packets, and what its flash has then.

use mqtt_embedded::blocking::{Connection, Flash};
use mqtt_embedded::proto::{Connect, Version};
use mqtt_embedded::session::{Config, Event};
use mqtt_embedded::{Buffers, Error};

use crate::far::{Far, Time, connect};
use crate::nor::Nor;

type Memory = Buffers<64, 192, 192, 4, 280>;

type Records = Flash<Nor, 128, 11>;

fn flash(nor: &Nor) -> Records {
    Flash::new(nor.clone(), 0..nor.pages()).unwrap()
}

/// Starts a device, which asks for a clean start if its flash has no session that goes on. The power is cut before CONNACK, or when
/// the device is connected.
fn start(
    nor: &Nor,
    far: &Far,
    time: &Time,
    answers: bool,
) -> Result<bool, Error<embedded_io::ErrorKind>> {
    far.reopen();
    far.0.borrow_mut().deaf = !answers;
    let (mut flash, mut buffers) = (flash(nor), Memory::with_journal());
    let (mut client, input) = buffers.client(Config::default());
    let has_session = flash.restore(&mut client)?;
    let connect = Connect {
        clean_start: !has_session,
        ..connect(Version::V5)
    };
    let connection = Connection::new(far.clone(), &mut client, input, time.clone(), &connect)?;
    let mut connection = connection.with_flash(&mut flash);
    connection.flush()?;
    if answers {
        let (event, _) = connection.next()?;
        assert!(matches!(event, Some(Event::Connected { .. })), "{event:?}");
        connection.flush()?;
    }
    Ok(has_session)
}

/// A clean start that was not answered is asked for again. Only the first attempt writes.
#[test]
fn a_device_that_was_reset_before_connack_connects() {
    let (time, nor) = (Time::default(), Nor::new(3));
    let far = Far::new(&time, 100);
    let mut written = Vec::new();
    for _ in 0..3 {
        assert_eq!(start(&nor, &far, &time, false), Ok(false));
        written.push(nor.wear().0);
    }
    assert_eq!(written, [written[0]; 3]);
    assert_eq!(start(&nor, &far, &time, true), Ok(false));
    assert_eq!(start(&nor, &far, &time, true), Ok(true));
    assert_eq!(start(&nor, &far, &time, false), Ok(true));
    assert_eq!(start(&nor, &far, &time, true), Ok(true));
}
