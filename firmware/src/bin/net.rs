//! The script over TCP: smoltcp on the board's network card. The broker is the host, on the port that the command line says.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m::singleton;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use firmware::board::{self, Millis};
use firmware::lan9118::{ADDRESS, Lan9118};
use firmware::script::{self, Script};
use firmware::semihosting::{argument, exit, log};
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::session::Client;
use mqtt_embedded::{Buffers, Clock, Error};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};

/// Where QEMU's network has the host.
const HOST: IpAddress = IpAddress::v4(10, 0, 2, 2);
const OWN: IpCidr = IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24);

#[cortex_m_rt::entry]
fn main() -> ! {
    let (_, clock) = board::start();
    let (Some(buffers), Some(received), Some(sent), Some(storage)) = (
        singleton!(: Buffers<192, 320, 384, 8> = Buffers::new()),
        singleton!(: [u8; 1024] = [0; 1024]),
        singleton!(: [u8; 1024] = [0; 1024]),
        singleton!(: [SocketStorage<'static>; 1] = [SocketStorage::EMPTY; 1]),
    ) else {
        exit(false);
    };
    let mut card = Lan9118::start();
    let config = Config::new(EthernetAddress(ADDRESS).into());
    let mut interface = Interface::new(config, &mut card, Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(OWN);
    });
    let _ = interface
        .routes_mut()
        .add_default_ipv4_route(Ipv4Address::new(10, 0, 2, 2));
    let mut sockets = SocketSet::new(&mut storage[..]);
    let socket = Socket::new(
        SocketBuffer::new(&mut received[..]),
        SocketBuffer::new(&mut sent[..]),
    );
    let mut tcp = Tcp {
        socket: sockets.add(socket),
        card,
        interface,
        sockets,
        clock,
        port: 40_000,
    };
    let (mut client, input) = buffers.client(script::config());
    let mut script = Script::default();
    for _ in 0..20 {
        match tcp
            .connect(argument())
            .and_then(|()| serve(&mut tcp, &mut client, input, clock, &mut script))
        {
            Ok(()) => exit(script.succeeded()),
            Err(_) => log("connection lost\n"),
        }
    }
    exit(false)
}

fn serve<T: Read + ReadReady + Write>(
    tcp: T,
    client: &mut Client<'_>,
    input: &mut [u8],
    clock: Millis,
    script: &mut Script,
) -> Result<(), Error<T::Error>> {
    let mut connection = Connection::new(tcp, client, input, clock, &script::connect())?;
    while !script.is_done() {
        let now = connection.now();
        let (event, client) = connection.next()?;
        script.step(event, client, now);
    }
    connection.disconnect()
}

/// One TCP connection after the other. The stack works whenever the transport is asked for something.
struct Tcp {
    card: Lan9118,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    clock: Millis,
    /// The last one that a connection was made from.
    port: u16,
}

impl Tcp {
    fn connect(&mut self, port: u16) -> Result<(), Error<ErrorKind>> {
        self.port += 1;
        let own = self.port;
        self.socket().abort();
        self.poll();
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        socket
            .connect(self.interface.context(), (HOST, port), own)
            .map_err(|_| Error::Io(ErrorKind::NotConnected))?;
        loop {
            let socket = self.poll();
            if socket.may_send() {
                return Ok(());
            }
            if !socket.is_open() {
                return Err(Error::Io(ErrorKind::ConnectionRefused));
            }
            cortex_m::asm::wfi();
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn poll(&mut self) -> &mut Socket<'static> {
        let now = Clock::now(&mut self.clock).as_millis();
        let now = Instant::from_millis(i64::try_from(now).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        self.socket()
    }
}

impl ErrorType for Tcp {
    type Error = ErrorKind;
}

impl ReadReady for Tcp {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        let socket = self.poll();
        // The end is there to be read as well.
        Ok(socket.can_recv() || !socket.may_recv())
    }
}

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        while !self.read_ready()? {
            cortex_m::asm::wfi();
        }
        Ok(self.socket().recv_slice(buffer).unwrap_or(0))
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        loop {
            let socket = self.poll();
            if !socket.may_send() {
                return Err(ErrorKind::ConnectionReset);
            }
            match socket.send_slice(bytes) {
                Ok(0) => cortex_m::asm::wfi(),
                Ok(n) => return Ok(n),
                Err(_) => return Err(ErrorKind::ConnectionReset),
            }
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.poll();
        Ok(())
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    log("panic\n");
    exit(false)
}
