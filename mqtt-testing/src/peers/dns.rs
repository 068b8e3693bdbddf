//! Runs a DNS server on a free port of 127.0.0.1, over UDP and TCP, that knows some SRV records.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use simple_dns::rdata::{RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

/// One SRV record.
#[derive(Clone, Debug)]
pub struct SrvRecord {
    /// The whole name of the record, such as `_mqtt._tcp.plant.example`.
    pub name: String,
    /// The priority of the record.
    pub priority: u16,
    /// The weight of the record.
    pub weight: u16,
    /// The port of the server.
    pub port: u16,
    /// The host name of the server, or `.`.
    pub target: String,
}

/// The records of a DNS server, and the way in which it answers.
#[derive(Clone, Debug)]
pub enum Zone {
    /// The server has these records. Other names do not exist.
    Records(Vec<SrvRecord>),
    /// The server has these records, and says that they are too many for UDP.
    TcpOnly(Vec<SrvRecord>),
    /// The server reports a failure for each name.
    Broken,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct DnsServer {
    /// The address of the server.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts a server.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(zone: Zone) -> Self {
        let both = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("its address");
            Some((UdpSocket::bind(address).ok()?, listener, address))
        };
        let found = std::iter::repeat_with(both).take(20).flatten().next();
        let (socket, listener, address) = found.expect("a port that is free for both");
        let stop = Arc::new(AtomicBool::new(false));
        let zone = Arc::new(zone);
        let udp = {
            let (stop, zone) = (Arc::clone(&stop), Arc::clone(&zone));
            std::thread::spawn(move || over_udp(&socket, &zone, &stop))
        };
        let tcp = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || over_tcp(&listener, &zone, &stop))
        };
        Self {
            address,
            stop,
            threads: vec![udp, tcp],
        }
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Both threads look at the flag after the next datagram or connection.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
        drop(TcpStream::connect(self.address));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn over_udp(socket: &UdpSocket, zone: &Zone, stop: &AtomicBool) {
    let mut space = [0; 512];
    while let Ok((n, from)) = socket.recv_from(&mut space) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(answer) = answer(&space[..n], zone, true) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn over_tcp(listener: &TcpListener, zone: &Zone, stop: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            continue;
        }
        if let Some(answer) = answer(&query, zone, false) {
            let length = u16::try_from(answer.len()).expect("a short answer");
            let _ = stream.write_all(&[&length.to_be_bytes(), &answer[..]].concat());
        }
    }
}

fn answer(query: &[u8], zone: &Zone, is_udp: bool) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    let name = query.questions.first()?.qname.to_string();
    let mut reply = Packet::new_reply(query.id());
    reply.questions.clone_from(&query.questions);
    let records = match zone {
        Zone::Broken => {
            *reply.rcode_mut() = RCODE::ServerFailure;
            return reply.build_bytes_vec().ok();
        }
        Zone::TcpOnly(_) if is_udp => {
            reply.set_flags(PacketFlag::TRUNCATION);
            return reply.build_bytes_vec().ok();
        }
        Zone::Records(records) | Zone::TcpOnly(records) => records,
    };
    let asked = records.iter().filter(|record| record.name == name);
    for record in asked {
        let srv = SRV {
            priority: record.priority,
            weight: record.weight,
            port: record.port,
            target: Name::new(record.target.trim_end_matches('.')).ok()?,
        };
        let name = Name::new(&record.name).ok()?;
        let resource = ResourceRecord::new(name, CLASS::IN, 60, RData::SRV(srv));
        reply.answers.push(resource);
    }
    if reply.answers.is_empty() {
        *reply.rcode_mut() = RCODE::NameError;
    }
    reply.build_bytes_vec_compressed().ok()
}
