//! A device whose power is cut within each write and erase of its flash: after the restart nothing that it promised is lost or
//! doubled.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use embedded_io::ErrorKind;
use mqtt_embedded::proto::{Connect, Properties, Property, QoS, Version};
use mqtt_embedded::session::{
    Acknowledge, Client, Config, Durable, Event, Instant, Refused, Violation,
};
use mqtt_embedded::{Buffers, Error, FlashError, SessionError, asynch, blocking};

use crate::far::{Far, Odd, Time, message};
use crate::nor::Nor;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// How many messages go in each direction, of which every other or every fourth one is at QoS 2.
const MESSAGES: usize = 8;

/// The transport fails when this message is written, which the server does not get then.
const FAILS_AT: usize = 6;

type Memory = Buffers<64, 192, 192, 4, 280>;
type Outcome = Result<(), Error<ErrorKind>>;
type Next<'a, 'b> = Result<(Option<Event<'a>>, &'a mut Client<'b>), Error<ErrorKind>>;

/// The connection that the device uses.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Blocking,
    Asynch,
}

/// A connection of either kind with a flash.
trait Device<'b> {
    fn now(&mut self) -> Instant;
    fn client(&mut self) -> &mut Client<'b>;
    async fn next_within<'a>(&'a mut self, patience: Duration) -> Next<'a, 'b>
    where
        'b: 'a;
    async fn flush(&mut self) -> Outcome;
}

macro_rules! device {
    ($kind:ident $(, $wait:tt)?) => {
        impl<'b> Device<'b>
            for $kind::Connection<'_, 'b, Far, Time, &mut $kind::Flash<Nor, 128, 11>>
        {
            fn now(&mut self) -> Instant {
                self.now()
            }

            fn client(&mut self) -> &mut Client<'b> {
                self.client()
            }

            async fn next_within<'a>(&'a mut self, patience: Duration) -> Next<'a, 'b>
            where
                'b: 'a,
            {
                self.next_within(patience)$(.$wait)?
            }

            async fn flush(&mut self) -> Outcome {
                self.flush()$(.$wait)?
            }
        }
    };
}

device!(blocking);
device!(asynch, await);

/// Runs a future. Time passes while it is pending.
fn block_on<T>(time: &Time, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        time.pass(1);
    }
}

/// A program, and what is outside of the device: the server and the flash.
struct World {
    far: Far,
    time: Time,
    nor: Nor,
    version: Version,
    kind: Kind,
    durable: Durable,
    /// How many messages the program has published, and which of them must be stored.
    published: usize,
    stored: Vec<usize>,
    /// Those at QoS 1 whose record may be put off, with the time when they were accepted.
    put_off: Vec<(usize, Instant)>,
    failed: bool,
    /// How many messages the server has published.
    served: usize,
    /// What the program made of messages. It is as durable as its note.
    effects: Vec<String>,
}

impl World {
    fn new(version: Version, kind: Kind, durable: Durable) -> Self {
        let time = Time::default();
        Self {
            far: Far::new(&time, 1_000),
            time,
            nor: Nor::new(3),
            version,
            kind,
            durable,
            published: 0,
            stored: Vec::new(),
            put_off: Vec::new(),
            failed: false,
            served: 0,
            effects: Vec::new(),
        }
    }

    /// A message at QoS 2 is recorded at once, and all before it: where records are put off there are fewer.
    fn qos_of(&self, number: usize) -> QoS {
        let every = if self.durable == Durable::Always {
            2
        } else {
            4
        };
        if number % every == 1 {
            QoS::ExactlyOnce
        } else {
            QoS::AtLeastOnce
        }
    }

    /// The device runs until the power is cut, or all is done.
    fn power_on(&mut self) -> Outcome {
        let time = self.time.clone();
        let outcome = block_on(&time, self.run());
        // The power is cut: what is old enough must be stored. What is due at this very moment is being written.
        if let Durable::WhenOffline(millis) = self.durable {
            let old = |accepted: Instant| time.get().since(accepted).as_millis() > millis.into();
            let put_off = self
                .put_off
                .drain(..)
                .filter(|(_, accepted)| old(*accepted));
            self.stored.extend(put_off.map(|(number, _)| number));
        }
        outcome
    }

    async fn run(&mut self) -> Outcome {
        macro_rules! run {
            ($kind:ident $(, $wait:tt)?) => {{
                let range = 0..self.nor.pages();
                let mut flash = $kind::Flash::<Nor, 128, 11>::new(self.nor.clone(), range)?;
                let mut buffers = Memory::with_journal();
                let mut config = Config::default();
                config.acknowledge = Acknowledge::ByHand;
                let (mut client, input) = buffers.client(config);
                flash.restore(&mut client)$(.$wait)??;
                client.set_durable(self.durable);
                let known = client.note().map_or(0, |note| usize::from(note[0]));
                self.effects.truncate(known);
                for _ in 0..4 {
                    self.far.reopen();
                    let expiry = [Property::SessionExpiryInterval(u32::MAX)];
                    let connect = self.connect(&client, &expiry);
                    let (far, time) = (self.far.clone(), self.time.clone());
                    let connection =
                        $kind::Connection::new(far, &mut client, input, time, &connect)?;
                    let connection = connection.with_flash(&mut flash);
                    if let Some(outcome) = self.connected(connection).await {
                        return outcome;
                    }
                }
                panic!("it connects for ever");
            }};
        }
        match self.kind {
            Kind::Blocking => run!(blocking),
            Kind::Asynch => run!(asynch, await),
        }
    }

    fn connect<'a>(&self, client: &Client<'_>, expiry: &'a [Property<'a>]) -> Connect<'a> {
        let v5 = self.version == Version::V5;
        Connect {
            clean_start: client.must_start_clean(),
            properties: Properties::from(if v5 { expiry } else { &[] }),
            ..Connect::new(self.version, "device")
        }
    }

    /// Returns `None` if the device has to connect again.
    async fn connected<'b>(&mut self, connection: impl Device<'b>) -> Option<Outcome> {
        match self.converse(connection).await {
            // The record of the session was not stored, but the server has it.
            Err(Error::Session(SessionError::Violation(Violation::SessionPresentWithoutState))) => {
                None
            }
            Err(Error::Io(_)) if self.nor.is_cut() => {
                let cut = FlashError::Failed(embedded_storage::nor_flash::NorFlashErrorKind::Other);
                Some(Err(cut.into()))
            }
            // The end of a connection stores all.
            Err(Error::Io(_)) => {
                let put_off = self.put_off.drain(..);
                self.stored.extend(put_off.map(|(number, _)| number));
                None
            }
            other => Some(other),
        }
    }

    async fn converse<'b>(&mut self, mut connection: impl Device<'b>) -> Outcome {
        while !connection.client().is_connected() {
            connection.next_within(Duration::from_secs(1)).await?;
        }
        for _ in 0..1_000 {
            self.publish(&mut connection).await?;
            let now = connection.now();
            let (event, client) = connection.next_within(Duration::from_millis(5)).await?;
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

    async fn publish<'b>(&mut self, connection: &mut impl Device<'b>) -> Outcome {
        let pending = self.far.0.borrow().server.pending();
        if self.served < MESSAGES && pending < 3 {
            let payload = format!("to {}", self.served);
            self.far
                .publish(self.qos_of(self.served), payload.as_bytes());
            self.served += 1;
        }
        // Two at once, so that more than one is on its way.
        for _ in 0..2 {
            let (number, now) = (self.published, connection.now());
            if number == MESSAGES {
                break;
            }
            let (qos, payload) = (self.qos_of(number), format!("from {number}"));
            match connection
                .client()
                .publish(&message(qos, payload.as_bytes()), now)
            {
                Err(Refused::Full) => break,
                accepted => accepted?,
            };
            self.published += 1;
            let may_wait = self.durable != Durable::Always && qos == QoS::AtLeastOnce;
            if may_wait {
                self.put_off.push((number, now));
            }
            if number == FAILS_AT && !std::mem::replace(&mut self.failed, true) {
                let failure = Odd::Fails(ErrorKind::ConnectionReset);
                self.far.0.borrow_mut().writes.push_back(failure);
            }
            connection.flush().await?;
            if !may_wait {
                self.stored.push(number);
            }
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
            if self.qos_of(number) == QoS::ExactlyOnce {
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

/// Cuts the power at each point, and looks for what is lost or doubled.
fn survives(kind: Kind, durable: Durable) {
    let (least_cuts, least_erases) = match durable {
        Durable::Always => (200, 2),
        _ => (100, 0),
    };
    for version in VERSIONS {
        let mut cuts = 0;
        for at in 1.. {
            let mut world = World::new(version, kind, durable);
            world.nor.cut_after(Some(at));
            if !is_power_cut(world.power_on()) {
                assert!(world.nor.wear().1 > least_erases, "too few erases");
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
            world.check(&format!(
                "{version:?}, {kind:?}, {durable:?}, cut after {at}"
            ));
        }
        assert!(cuts > least_cuts, "only {cuts} steps");
    }
}

#[test]
fn a_power_cut_at_any_point_loses_and_doubles_nothing() {
    survives(Kind::Blocking, Durable::Always);
}

#[test]
fn a_power_cut_of_an_async_device_loses_and_doubles_nothing() {
    survives(Kind::Asynch, Durable::Always);
}

/// A message at QoS 1 may be lost during the time of `Durable::WhenOffline` while the connection is up, but not when it is over.
#[test]
fn a_power_cut_loses_only_young_messages_at_qos_1_if_their_records_are_put_off() {
    for millis in [2, 1_000] {
        survives(Kind::Blocking, Durable::WhenOffline(millis));
        survives(Kind::Asynch, Durable::WhenOffline(millis));
    }
}
