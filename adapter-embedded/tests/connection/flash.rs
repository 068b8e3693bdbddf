//! A device whose power is cut within each write and erase of its flash: after the restart nothing that it promised is lost or
//! doubled.

use std::time::Duration;

use embedded_io::ErrorKind;
use mqtt_embedded::blocking::{Connection, Flash};
use mqtt_embedded::proto::{Connect, Properties, Property, QoS, Version};
use mqtt_embedded::session::{Acknowledge, Client, Config, Event, Refused, Violation};
use mqtt_embedded::{Buffers, Error, FlashError, SessionError};

use crate::far::{Far, Time, message};
use crate::nor::Nor;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// How many messages go in each direction, of which every other one is at QoS 2.
const MESSAGES: usize = 8;

type Memory = Buffers<64, 192, 192, 4, 280>;
type Records = Flash<Nor, 128, 11>;

const fn qos_of(number: usize) -> QoS {
    if number.is_multiple_of(2) {
        QoS::AtLeastOnce
    } else {
        QoS::ExactlyOnce
    }
}

/// A program, and what is outside of the device: the server and the flash.
struct World {
    far: Far,
    time: Time,
    nor: Nor,
    version: Version,
    /// How many messages the program has published, and which of them it knows to be stored.
    published: usize,
    stored: Vec<usize>,
    /// How many messages the server has published.
    served: usize,
    /// What the program made of messages. It is as durable as its note.
    effects: Vec<String>,
}

type Outcome = Result<(), Error<ErrorKind>>;

impl World {
    fn new(version: Version) -> Self {
        let time = Time::default();
        Self {
            far: Far::new(&time, 1_000),
            time,
            nor: Nor::new(3),
            version,
            published: 0,
            stored: Vec::new(),
            served: 0,
            effects: Vec::new(),
        }
    }

    /// The device runs until the power is cut, or all is done.
    fn power_on(&mut self) -> Outcome {
        self.far.reopen();
        let mut flash = Records::new(self.nor.clone(), 0..self.nor.pages())?;
        let mut buffers = Memory::with_journal();
        let mut config = Config::default();
        config.acknowledge = Acknowledge::ByHand;
        let (mut client, input) = buffers.client(config);
        flash.restore(&mut client)?;
        let known = client.note().map_or(0, |note| usize::from(note[0]));
        self.effects.truncate(known);
        for _ in 0..3 {
            match self.connected(&mut client, input, &mut flash) {
                // The record of the session was not stored, but the server has it.
                Err(Error::Session(SessionError::Violation(
                    Violation::SessionPresentWithoutState,
                ))) => {
                    self.far.reopen();
                }
                other => return other,
            }
        }
        panic!("the server has a session for ever");
    }

    fn connected(
        &mut self,
        client: &mut Client<'_>,
        input: &mut [u8],
        flash: &mut Records,
    ) -> Outcome {
        let expiry = [Property::SessionExpiryInterval(u32::MAX)];
        let v5 = self.version == Version::V5;
        let connect = Connect {
            clean_start: client.must_start_clean(),
            properties: Properties::from(if v5 { &expiry[..] } else { &[] }),
            ..Connect::new(self.version, "device")
        };
        let connection =
            Connection::new(self.far.clone(), client, input, self.time.clone(), &connect)?;
        let mut connection = connection.with_flash(flash);
        while !connection.client().is_connected() {
            connection.next()?;
        }
        for _ in 0..1_000 {
            self.publish(&mut connection)?;
            let now = connection.now();
            let (event, client) = connection.next_within(Duration::from_millis(5))?;
            match event {
                Some(Event::Message(message)) => {
                    let payload = String::from_utf8(message.publish.payload.to_vec()).unwrap();
                    self.effects.push(payload);
                    let note = [u8::try_from(self.effects.len()).unwrap()];
                    client.acknowledge_with(message.receipt.unwrap(), &note, now)?;
                }
                Some(_) => {}
                None if self.is_done(client) => return Ok(()),
                None => {}
            }
        }
        panic!("it never comes to rest");
    }

    fn publish(&mut self, connection: &mut Connection<'_, '_, Far, Time, &mut Records>) -> Outcome {
        let pending = self.far.0.borrow().server.pending();
        if self.served < MESSAGES && pending < 3 {
            let payload = format!("to {}", self.served);
            self.far.publish(qos_of(self.served), payload.as_bytes());
            self.served += 1;
        }
        // Two at once, so that more than one is on its way.
        for _ in 0..2 {
            let (number, now) = (self.published, connection.now());
            if number == MESSAGES {
                break;
            }
            let payload = format!("from {number}");
            match connection
                .client()
                .publish(&message(qos_of(number), payload.as_bytes()), now)
            {
                Err(Refused::Full) => break,
                accepted => accepted?,
            };
            self.published += 1;
            connection.flush()?;
            self.stored.push(number);
        }
        Ok(())
    }

    fn is_done(&self, client: &Client<'_>) -> bool {
        let server = &self.far.0.borrow().server;
        let done = [self.served, self.published] == [MESSAGES; 2];
        done && client.pending() == 0 && server.pending() == 0
    }

    fn check(&self, what: &str) {
        let heard = &self.far.0.borrow().heard;
        for number in 0..MESSAGES {
            let count = |list: &[String], from: &str| {
                let payload = format!("{from} {number}");
                list.iter().filter(|other| **other == payload).count()
            };
            let (up, down) = (count(heard, "from"), count(&self.effects, "to"));
            let told = self.stored.contains(&number);
            let all = format!(
                "{what}: message {number} up {up} times (stored: {told}), down {down} times"
            );
            assert!(up >= usize::from(told) && down >= 1, "{all}");
            if qos_of(number) == QoS::ExactlyOnce {
                assert!(up <= 1 && down == 1, "{all}");
            }
        }
    }
}

fn is_power_cut(outcome: Outcome) -> bool {
    match outcome {
        Ok(()) => false,
        Err(Error::Session(SessionError::Flash(FlashError::Failed(_)))) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_power_cut_at_any_point_loses_and_doubles_nothing() {
    for version in VERSIONS {
        let mut cuts = 0;
        for at in 1.. {
            let mut world = World::new(version);
            world.nor.cut_after(Some(at));
            if !is_power_cut(world.power_on()) {
                assert!(world.nor.wear().1 > 2, "too few erases");
                break;
            }
            cuts += 1;
            // Every other time the power is cut again soon.
            if at % 2 == 1 {
                world.nor.cut_after(Some(1 + at * 7 % 60));
                let _ = is_power_cut(world.power_on());
            }
            world.nor.cut_after(None);
            assert!(!is_power_cut(world.power_on()));
            world.check(&format!("{version:?}, cut after {at}"));
        }
        assert!(cuts > 200, "only {cuts} steps");
    }
}
