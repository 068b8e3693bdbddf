//! Simulates a serial line with a modem at its end, between an emulated device and a broker. A UART has no carrier, so a cut link
//! is silent, and text of the modem is noise among the packets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_proto::{FixedHeader, MAX_PACKET, PacketType, Version};

/// A fault of the line.
#[derive(Clone, Copy, Debug)]
pub enum LineFault {
    /// The link ends between two packets.
    Cut,
    /// The link ends in the middle of a packet to the device.
    CutInside,
    /// The modem prints an additional line.
    Noise,
}

/// A line to which a device can be connected.
#[derive(Debug)]
pub struct Modem {
    /// The port to which the device connects.
    pub port: u16,
    passed: Receiver<PacketType>,
    happened: Arc<Mutex<usize>>,
}

/// The time limit for any wait of a test.
const PATIENCE: Duration = Duration::from_secs(60);

struct Line {
    device: Mutex<TcpStream>,
    broker_port: u16,
    /// The link to the broker, if there is one, and the number of links so far.
    link: Mutex<(Option<TcpStream>, usize)>,
    passed: Mutex<Sender<PacketType>>,
    /// The faults, each after this many PUBLISH packets of the device, the next one last.
    faults: Mutex<Vec<(usize, LineFault)>>,
    cut_inside: Mutex<bool>,
    happened: Arc<Mutex<usize>>,
}

impl Modem {
    /// Makes a line to the broker on this port. Each fault comes after the given number of PUBLISH packets of the device, in
    /// ascending order.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(broker_port: u16, faults: &[(usize, LineFault)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let (sender, passed) = channel();
        let happened = Arc::new(Mutex::new(0));
        let (faults, counter) = (faults.iter().rev().copied().collect(), happened.clone());
        std::thread::spawn(move || {
            let (device, _) = listener.accept()?;
            device.set_nodelay(true)?;
            let line = Arc::new(Line {
                device: Mutex::new(device.try_clone()?),
                broker_port,
                link: Mutex::new((None, 0)),
                passed: Mutex::new(sender),
                faults: Mutex::new(faults),
                cut_inside: Mutex::new(false),
                happened: counter,
            });
            line.serve(device)
        });
        Self {
            port,
            passed,
            happened,
        }
    }

    /// Waits until the broker has sent such a packet to the device.
    ///
    /// # Panics
    /// None comes within a minute, or the device is gone.
    pub fn wait_for(&self, packet: PacketType) {
        while self
            .passed
            .recv_timeout(PATIENCE)
            .expect("the device is there")
            != packet
        {}
    }

    /// Returns how many faults have happened.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn happened(&self) -> usize {
        *self.happened.lock().expect("no thread panics with it")
    }
}

/// Calls `each` with the packets that arrive, until it returns `false`.
fn packets(
    mut from: impl Read,
    mut each: impl FnMut(PacketType, &[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Ok(Some(header)) = FixedHeader::decode(&bytes, Version::V5, MAX_PACKET) {
            let Some(packet) = bytes.get(..header.packet_len()) else {
                break;
            };
            if !each(header.packet_type, packet)? {
                return Ok(());
            }
            bytes.drain(..header.packet_len());
        }
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

impl Line {
    /// Moves bytes of the device. They are lost between a cut and the next CONNECT.
    fn serve(self: Arc<Self>, device: TcpStream) -> io::Result<()> {
        let mut published = 0;
        packets(device, |packet, bytes| {
            if packet == PacketType::Connect {
                self.clone().dial()?;
            }
            if let (Some(link), _) = &mut *self.link.lock().expect("no thread panics with it") {
                // The other direction notices that the broker closed the link.
                let _ = link.write_all(bytes);
            }
            if packet == PacketType::Publish {
                published += 1;
                self.fault(published)?;
            }
            Ok(true)
        })?;
        self.hang_up();
        Ok(())
    }

    fn fault(&self, published: usize) -> io::Result<()> {
        let fault = {
            let mut faults = self.faults.lock().expect("no thread panics with it");
            faults.pop_if(|(after, _)| *after <= published)
        };
        let Some((_, fault)) = fault else {
            return Ok(());
        };
        match fault {
            LineFault::Cut => self.hang_up(),
            LineFault::CutInside => {
                *self.cut_inside.lock().expect("no thread panics with it") = true
            }
            LineFault::Noise => {
                let mut device = self.device.lock().expect("no thread panics with it");
                device.write_all(b"\r\nNO CARRIER\r\n")?;
            }
        }
        *self.happened.lock().expect("no thread panics with it") += 1;
        Ok(())
    }

    fn hang_up(&self) {
        if let (Some(link), _) = &mut *self.link.lock().expect("no thread panics with it") {
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    fn dial(self: Arc<Self>) -> io::Result<()> {
        self.hang_up();
        let link = TcpStream::connect(("127.0.0.1", self.broker_port))?;
        link.set_nodelay(true)?;
        let from_broker = link.try_clone()?;
        let number = {
            let mut links = self.link.lock().expect("no thread panics with it");
            *links = (Some(link), links.1 + 1);
            links.1
        };
        std::thread::spawn(move || {
            packets(from_broker, |packet, bytes| {
                self.deliver(number, packet, bytes)
            })
        });
        Ok(())
    }

    /// Moves bytes of the broker on the link with this number.
    fn deliver(&self, number: usize, packet: PacketType, bytes: &[u8]) -> io::Result<bool> {
        let mut device = self.device.lock().expect("no thread panics with it");
        let current = self.link.lock().expect("no thread panics with it").1;
        if current != number {
            return Ok(false);
        }
        let cut = std::mem::take(&mut *self.cut_inside.lock().expect("no thread panics with it"));
        if cut {
            device.write_all(&bytes[..bytes.len() / 2])?;
            self.hang_up();
            return Ok(false);
        }
        device.write_all(bytes)?;
        let _ = self
            .passed
            .lock()
            .expect("no thread panics with it")
            .send(packet);
        Ok(true)
    }
}
