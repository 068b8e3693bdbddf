//! Runs the images of `firmware` on emulated boards, over a serial line with two cuts and noise, with Mosquitto and `mqtt
//! broker`. `firmware/src/script.rs` has the task of an image; this test is its peer.

mod flash;
mod tls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use mqtt_std::proto::{PacketType, QoS};
use mqtt_std::{Handle, Messages, Options, ReceivedMessage};
use mqtt_testing::peers::Mosquitto;
use mqtt_testing::process::Process;
use mqtt_testing::wires::Proxy;
use mqtt_testing::wires::{LineFault, Modem};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// The link is cut between packets and inside of one, with noise between the cuts, while 300 numbers are published.
const FAULTS: [(usize, LineFault); 3] = [
    (60, LineFault::Cut),
    (140, LineFault::Noise),
    (220, LineFault::CutInside),
];

struct Board {
    name: &'static str,
    target: &'static str,
}

/// Builds an image. Returns its path.
fn build(board: &Board, version: &str, image: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware");
    let target = folder.join(format!("target/{}-{version}", board.name));
    let mut features = vec![board.name];
    features.extend((version == "5").then_some("v5"));
    features.extend(
        ["net", "flash", "tls"]
            .into_iter()
            .find(|own| *own == image),
    );
    let features = features.join(",");
    let built = Command::new(env!("CARGO"))
        .current_dir(&folder)
        .args(["build", "--quiet", "--locked", "--release", "--bin", image])
        .args(["--target", board.target, "--features", &features])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "the image builds; scripts/setup.sh installs its target"
    );
    target.join(board.target).join("release").join(image)
}

/// A broker, ours or Mosquitto; it ends when this is dropped.
struct Broker {
    port: u16,
    _running: (Option<Process>, Option<Mosquitto>),
}

impl Broker {
    fn mosquitto() -> Self {
        let broker = Mosquitto::start("");
        Self {
            port: broker.port,
            _running: (None, Some(broker)),
        }
    }

    fn ours() -> Self {
        let process = Process::start(MQTT, &["broker", "--bind", "127.0.0.1:0"]);
        let port = process.wait_stderr_after("address=127.0.0.1:");
        Self {
            port: port.parse().expect("a number"),
            _running: (Some(process), None),
        }
    }
}

/// Runs an image to its end on a line to the broker.
fn run(board: &Board, image: &Path, broker: &Broker) {
    let modem = Modem::start(broker.port, &FAULTS);
    let serial = format!("tcp:127.0.0.1:{}", modem.port);
    let partner = Partner::new(broker.port);
    let device = emulate(board, image, "", &["-serial", &serial]);
    modem.wait_for(PacketType::SubAck);
    let connections = achieve(device, partner);
    assert_eq!(modem.happened(), FAULTS.len());
    assert!(connections > FAULTS.len(), "{connections} connections");
}

/// Runs the image with a network card over a TCP connection to the broker, which is cut repeatedly.
fn run_on_tcp(board: &Board, image: &Path, broker: &Broker) {
    let proxy = Proxy::start(broker.port, 3_000, 6_000, 7);
    let partner = Partner::new(broker.port);
    let options = ["-nic", "user,model=lan9118", "-serial", "null"];
    let argument = format!(",arg=net,arg={}", proxy.port);
    let device = emulate(board, image, &argument, &options);
    device.wait_stderr("subscribed\n");
    let connections = achieve(device, partner);
    assert!(connections > 2, "{connections} connections");
}

fn emulate(board: &Board, image: &Path, arguments: &str, options: &[&str]) -> Process {
    let semihosting = format!("enable=on,target=native{arguments}");
    let image = image.to_str().expect("a path of text");
    let mut all = vec!["-M", board.name, "-nographic", "-monitor", "none"];
    all.extend(["-semihosting-config", &semihosting, "-kernel", image]);
    all.extend(options);
    Process::start("qemu-system-arm", &all)
}

/// Waits until the device has finished its task. Returns how many connections it needed.
fn achieve(device: Process, partner: Partner) -> usize {
    let conversation = thread::spawn(|| partner.converse());
    let ended = device.end();
    let log = ended.stderr;
    assert_eq!(ended.code, Some(0), "{log}");
    conversation.join().expect("the conversation ended well");
    log.matches("connected\n").count()
}

/// A client of the same broker that exchanges messages with the image.
struct Partner {
    handle: Handle,
    echoes: Messages,
    sums: Messages,
}

impl Partner {
    fn new(port: u16) -> Self {
        let options = Options::new("127.0.0.1", port);
        let handle = Handle::connect(options).unwrap_or_else(|error| panic!("no broker: {error}"));
        let subscribe = |filter| {
            let messages = handle.subscribe(filter, QoS::ExactlyOnce);
            messages.expect("a subscription")
        };
        let (echoes, sums) = (subscribe("fw/out"), subscribe("fw/sum"));
        Self {
            handle,
            echoes,
            sums,
        }
    }

    fn publish(&self, topic: &str, payload: &[u8]) {
        let ticket = self.handle.publish(topic, QoS::ExactlyOnce, false, payload);
        let _ = ticket.expect("the broker is there").wait();
    }

    /// Sends each message back; a message that is larger than the buffers of the image arrives completely.
    fn converse(mut self) {
        for n in 0..10 {
            let said = format!("message {n}");
            self.publish("fw/in", said.as_bytes());
            // At QoS 1 an echo may come twice.
            while next(&mut self.echoes).payload != said {}
        }
        let large: Vec<u8> = (0..3_000_u16).map(|n| n.to_le_bytes()[0]).collect();
        self.publish("fw/large", &large);
        let sum: u32 = large.iter().map(|byte| u32::from(*byte)).sum();
        let told = next(&mut self.sums);
        assert_eq!(
            told.payload[..],
            [3_000_u32.to_be_bytes(), sum.to_be_bytes()].concat()
        );
        self.publish("fw/in", b"stop");
    }
}

/// Returns the next message. A failed device sends no more messages.
fn next(messages: &mut Messages) -> ReceivedMessage {
    let message = messages.next_within(Duration::from_secs(30));
    message.expect("the device says something")
}

/// Runs the blocking and the async image, in both versions, with both brokers.
fn survives(board: &Board) {
    thread::scope(|scope| {
        for version in ["3.1.1", "5"] {
            for image in ["blocking", "asynch"] {
                let image = build(board, version, image);
                for broker in [Broker::mosquitto, Broker::ours] {
                    let image = image.clone();
                    scope.spawn(move || run(board, &image, &broker()));
                }
            }
        }
    });
}

macro_rules! boards {
    ($($name:ident: $board:literal, $target:literal;)*) => {
        $(#[test]
        fn $name() {
            survives(&Board { name: $board, target: $target });
        })*
    };
}

boards! {
    cortex_m3: "lm3s6965evb", "thumbv7m-none-eabi";
    cortex_m4f: "mps2-an386", "thumbv7em-none-eabihf";
    cortex_m3_with_8_kib: "stm32vldiscovery", "thumbv7m-none-eabi";
    cortex_m0: "microbit", "thumbv6m-none-eabi";
}

/// The image uses smoltcp with the network card of the board.
#[test]
fn cortex_m4f_on_a_network() {
    let board = Board {
        name: "mps2-an386",
        target: "thumbv7em-none-eabihf",
    };
    for version in ["3.1.1", "5"] {
        let image = build(&board, version, "net");
        for broker in [Broker::mosquitto, Broker::ours] {
            run_on_tcp(&board, &image, &broker());
        }
    }
}
