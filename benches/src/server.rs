//! A server that acknowledges and discards, or sends, and the CPU time of its client.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use cpu_time::ThreadTime;

/// The topic of each message.
pub const TOPIC: &str = "factory/line7/sensor";
/// The payload of each message.
pub const PAYLOAD: [u8; 64] = [0x42; 64];
/// How many messages at QoS 0 a server sends.
pub const COUNT: usize = 1_000_000;
/// How many messages at QoS 1 and 2 the server sends before it awaits an acknowledgement.
const WINDOW: u16 = 100;

/// A server that takes PUBLISH and acknowledges it, and answers SUBSCRIBE with as many messages as [`count`] says.
pub fn server() -> u16 {
    listen(serve)
}

/// Gives each connection to `serve`, one after the other.
pub fn listen<T>(serve: impl Fn(TcpStream) -> T + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nodelay(true).expect("an option of TCP");
            serve(stream);
        }
    });
    port
}

/// Serves one client.
///
/// # Errors
/// The connection fails.
pub fn serve(mut stream: impl Read + Write) -> std::io::Result<()> {
    let mut input = vec![0; 256 << 10];
    let (mut filled, mut answer) = (0, Vec::new());
    let (mut left, mut qos) = (0, 0);
    loop {
        let n = stream.read(&mut input[filled..])?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        let mut rest = &input[..filled];
        while let Some((first, body, behind)) = packet(rest) {
            rest = behind;
            match first >> 4 {
                1 => answer.extend([0x20, 2, 0, 0]),
                3 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    match first >> 1 & 3 {
                        1 => answer.extend([0x40, 2, body[2 + topic], body[3 + topic]]),
                        2 => answer.extend([0x50, 2, body[2 + topic], body[3 + topic]]),
                        _ => {}
                    }
                }
                // The message is delivered, and the next one goes out under its identifier.
                4 | 7 if left > 0 => {
                    left -= 1;
                    message(qos, [body[0], body[1]], &mut answer);
                }
                5 => answer.extend([0x62, 2, body[0], body[1]]),
                6 => answer.extend([0x70, 2, body[0], body[1]]),
                8 => {
                    qos = *body.last().expect("the QoS of the filter");
                    answer.extend([0x90, 3, body[0], body[1], qos]);
                    if qos == 0 {
                        stream.write_all(&answer)?;
                        answer.clear();
                        write_all_messages(&mut stream)?;
                    } else {
                        left = count(qos) - usize::from(WINDOW);
                        (1..=WINDOW).for_each(|id| message(qos, id.to_be_bytes(), &mut answer));
                    }
                }
                _ => {}
            }
        }
        let unused = rest.len();
        input.copy_within(filled - unused..filled, 0);
        filled = unused;
        stream.write_all(&answer)?;
        answer.clear();
    }
}

/// Returns the first byte and the body of the first packet, and the bytes behind it, if all of it is there.
fn packet(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [first, low, rest @ ..] = input else {
        return None;
    };
    // No length here takes more than two bytes.
    let (len, rest) = match *low {
        0..0x80 => (usize::from(*low), rest),
        _ => {
            let (high, rest) = rest.split_first()?;
            (usize::from(low & 0x7F) | usize::from(*high) << 7, rest)
        }
    };
    let (body, behind) = rest.split_at_checked(len)?;
    Some((*first, body, behind))
}

/// Writes [`COUNT`] messages at QoS 0.
fn write_all_messages(stream: &mut impl Write) -> std::io::Result<()> {
    let mut block = Vec::new();
    (0..1_000).for_each(|_| message(0, [0, 0], &mut block));
    (0..COUNT / 1_000).try_for_each(|_| stream.write_all(&block))
}

/// Appends a PUBLISH.
fn message(qos: u8, id: [u8; 2], out: &mut Vec<u8>) {
    let id = if qos == 0 { &[][..] } else { &id };
    let topic = u8::try_from(TOPIC.len()).expect("short");
    let length = 2 + TOPIC.len() + id.len() + PAYLOAD.len();
    out.extend([
        0x30 | qos << 1,
        u8::try_from(length).expect("short"),
        0,
        topic,
    ]);
    out.extend(TOPIC.bytes());
    out.extend(id);
    out.extend(PAYLOAD);
}

/// Runs a client on a thread of its own, and returns what it costs for each message, in microseconds of CPU.
pub fn cost<F: Future<Output = ()>>(
    count: usize,
    work: impl Fn() -> F + Copy + Send + 'static,
) -> f64 {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let start = ThreadTime::now();
        runtime.block_on(work());
        start.elapsed().as_secs_f64() * 1e6 / count as f64
    };
    std::thread::spawn(run).join().expect("no panic")
}

/// The least cost of three runs.
pub fn measure<F: Future<Output = ()>>(
    count: usize,
    work: impl Fn() -> F + Copy + Send + 'static,
) -> f64 {
    let least = |least: f64, _| least.min(cost(count, work));
    (0..3).fold(f64::INFINITY, least)
}

/// How many messages are measured.
#[must_use]
pub fn count(qos: u8) -> usize {
    if qos == 0 { COUNT } else { COUNT / 2 }
}
