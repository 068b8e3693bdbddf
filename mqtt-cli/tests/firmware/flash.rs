//! A device that is reset at any instant, also while it writes or erases its flash, which is a file. `firmware/src/bin/flash.rs` has its
//! task: it forwards the numbers that this test tells it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mqtt_std::proto::QoS;
use mqtt_std::{Handle, Messages, Options};
use mqtt_testing::process::Process;

use crate::{Board, Broker, build, emulate};

/// Bytes of the flash: as in `firmware/src/flash.rs`.
const CAPACITY: usize = 16 * 256;
/// The number after which the device ends.
const LAST: u16 = u16::MAX;
/// How many numbers may be on their way: fewer than the device has room for.
const ON_THE_WAY: u16 = 6;

fn resets() -> u32 {
    std::env::var("MQTT_RESETS").map_or(24, |resets| resets.parse().expect("a number"))
}

const fn qos_of(number: u16) -> QoS {
    if number % 2 == 1 {
        QoS::ExactlyOnce
    } else {
        QoS::AtLeastOnce
    }
}

/// A client of the same broker that tells the device numbers, and gets them back.
struct Partner {
    handle: Handle,
    forwarded: Messages,
    /// Of all told numbers, since messages of one QoS only come in their order, which the device relies on.
    qos: QoS,
    /// No more resets follow, so the device may end.
    at_rest: Arc<AtomicBool>,
}

impl Partner {
    fn new(port: u16, qos: QoS, at_rest: Arc<AtomicBool>) -> Self {
        let options = Options::new("127.0.0.1", port);
        let handle = Handle::connect(options).unwrap_or_else(|error| panic!("no broker: {error}"));
        let forwarded = handle.subscribe("fw/forwarded", QoS::ExactlyOnce);
        Self {
            forwarded: forwarded.expect("a subscription"),
            handle,
            qos,
            at_rest,
        }
    }

    fn tell(&self, number: u16) {
        let payload = number.to_be_bytes().to_vec();
        let ticket = self.handle.publish("fw/told", self.qos, false, payload);
        let _ = ticket.expect("the broker is there").wait();
    }

    /// Tells numbers as long as the device is reset, and then the last one. Returns how many it told, and all that came back.
    fn converse(mut self) -> (u16, Vec<u16>) {
        let (mut told, mut next, mut back) = (0, 0, Vec::new());
        let mut over = false;
        while back.last() != Some(&LAST) {
            while !over && told < next + ON_THE_WAY {
                over = self.at_rest.load(Ordering::SeqCst);
                self.tell(if over { LAST } else { told });
                told += u16::from(!over);
            }
            let message = self.forwarded.next_within(Duration::from_secs(60));
            let message = message.expect("the device forwards what it was told");
            let number = <[u8; 2]>::try_from(&message.payload[..]).expect("a number");
            let number = u16::from_be_bytes(number);
            next = next.max(number.saturating_add(1));
            back.push(number);
        }
        (told, back)
    }
}

/// The device, its flash, and the resets.
struct Device<'a> {
    board: &'a Board,
    image: PathBuf,
    flash: PathBuf,
    random: u32,
    in_writes: u32,
    in_erases: u32,
}

impl<'a> Device<'a> {
    fn new(board: &'a Board, image: PathBuf, seed: u32) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let flash = folder.join(format!("flash-{}-{seed}", std::process::id()));
        std::fs::write(&flash, vec![0xFF; CAPACITY]).expect("a file");
        Self {
            board,
            image,
            flash,
            random: seed,
            in_writes: 0,
            in_erases: 0,
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        (self.random >> 8) % below
    }

    /// Starts with what is in the flash. The power is cut in the step with this number; 0 is never.
    fn start(&self, port: u16, cut: u32) -> Process {
        // QEMU takes two commas in a value as one.
        let path = self
            .flash
            .to_str()
            .expect("a path of text")
            .replace(',', ",,");
        let arguments = format!(",arg=flash,arg={path},arg={cut}");
        let serial = format!("tcp:127.0.0.1:{port}");
        emulate(self.board, &self.image, &arguments, &["-serial", &serial])
    }

    fn run_until_power_cut(&mut self, port: u16, cut: u32) {
        let ended = self.start(port, cut).end();
        let log = ended.stderr;
        self.in_writes += u32::from(log.contains("power cut in a write\n"));
        self.in_erases += u32::from(log.contains("power cut in an erase\n"));
        assert!(log.contains("power cut"), "cut in step {cut}: {log}");
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.flash);
    }
}

/// Resets the device many times. Returns how many of the cuts were in writes, and in erases.
fn survives(board: &Board, image: PathBuf, broker: &Broker, seed: u32) -> (u32, u32) {
    let mut device = Device::new(board, image, seed);
    let at_rest = Arc::new(AtomicBool::new(false));
    let qos = if seed % 4 < 2 {
        QoS::AtLeastOnce
    } else {
        QoS::ExactlyOnce
    };
    let partner = Partner::new(broker.port, qos, at_rest.clone());
    for cut in [1, 2 + device.random(8)] {
        device.run_until_power_cut(broker.port, cut);
    }
    // From here on the broker keeps messages for the device.
    device.start(broker.port, 0).wait_stderr("subscribed\n");
    let conversation = thread::spawn(|| partner.converse());
    for reset in 0..resets() {
        if reset % 3 == 2 {
            // The host ends QEMU, which may be anywhere.
            let count = 1 + device.random(6);
            let running = device.start(broker.port, 0);
            let _ = running.wait_stderr_count("forwarded\n", count as usize);
        } else {
            let cut = 1 + device.random(400);
            device.run_until_power_cut(broker.port, cut);
        }
    }
    at_rest.store(true, Ordering::SeqCst);
    let ended = device.start(broker.port, 0).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (told, back) = conversation.join().expect("the conversation ended well");
    check(told, &back);
    assert!(u32::from(told) > resets(), "only {told} numbers were told");
    (device.in_writes, device.in_erases)
}

fn check(told: u16, back: &[u16]) {
    for number in (0..told).chain([LAST]) {
        let times = back.iter().filter(|other| **other == number).count();
        let once = qos_of(number) == QoS::ExactlyOnce;
        assert!(
            times == 1 || times > 1 && !once,
            "{number} came {times} times"
        );
    }
    let twos = back.iter().filter(|number| *number % 2 == 1);
    assert!(twos.is_sorted(), "QoS 2 out of order: {back:?}");
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: the power of a device is cut within writes and erases of its flash, and QEMU is killed at any
/// instant. Of the numbers that it forwards, those at QoS 1 come at least once, and those at QoS 2 once and in order.
#[test]
fn a_device_that_is_reset_loses_and_doubles_nothing() {
    let board = Board {
        name: "lm3s6965evb",
        target: "thumbv7m-none-eabi",
    };
    let images = ["3.1.1", "5"].map(|version| build(&board, version, "flash"));
    let cuts: Vec<(u32, u32)> = thread::scope(|scope| {
        let brokers = [Broker::mosquitto, Broker::ours];
        let runs = (1..).zip(
            images
                .iter()
                .flat_map(|image| brokers.map(|broker| (image, broker))),
        );
        let runs = runs.map(|(seed, (image, broker))| {
            let board = &board;
            scope.spawn(move || survives(board, image.clone(), &broker(), seed))
        });
        let runs: Vec<_> = runs.collect();
        runs.into_iter()
            .map(|run| run.join().expect("it ended well"))
            .collect()
    });
    assert!(
        cuts.iter().any(|(writes, _)| *writes > 0),
        "no write was cut"
    );
    assert!(
        cuts.iter().any(|(_, erases)| *erases > 0),
        "no erase was cut"
    );
}
