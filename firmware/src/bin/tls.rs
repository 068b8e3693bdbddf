//! Five messages at QoS 1 over TLS 1.3 by `embedded-tls` on a UART. The command line says in which file the certificate of the
//! authority is, in DER, and how many bytes it has.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m::singleton;
use embedded_tls::blocking::TlsConnection;
use embedded_tls::pki::CertVerifier;
use embedded_tls::{
    Aes128GcmSha256, Certificate, CryptoProvider, CryptoRngCore, NoClock, SignatureScheme,
    TlsConfig, TlsContext, TlsError, TlsVerifier,
};
use firmware::board::{self, Millis, Uart};
use firmware::semihosting::{File, exit, log, path_and_number, tell};
use firmware::stack::Painted;
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::proto::{Connect, QoS, TopicName, Version};
use mqtt_embedded::session::{Config, Event, Outgoing};
use mqtt_embedded::{Buffers, Clock, Error, Patient};
use p256::ecdsa::signature::SignerMut;
use p256::ecdsa::{DerSignature, SigningKey};
use rand_core::{CryptoRng, RngCore};

const TOPIC: TopicName<'static> = TopicName::from_static("fw/tls");
const MESSAGES: u32 = 5;

/// A record that arrives, with its head and tag, and one that is sent.
struct Memory {
    incoming: [u8; 16_640],
    outgoing: [u8; 4_096],
    authority: [u8; 2_048],
    mqtt: Buffers<128, 192, 128, 2>,
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let (uart, clock) = board::start();
    let Some(memory) = singleton!(: Memory = Memory {
        incoming: [0; 16_640],
        outgoing: [0; 4_096],
        authority: [0; 2_048],
        mqtt: Buffers::new(),
    }) else {
        exit(false);
    };
    let painted = Painted::new();
    let succeeded = run(uart, clock, memory);
    tell("stack", painted.peak());
    exit(succeeded)
}

/// Has a stack frame of its own, below the painted one, so that its memory counts as stack in use.
#[inline(never)]
fn run(uart: Uart, clock: Millis, memory: &mut Memory) -> bool {
    let mut line = [0; 512];
    let Some((path, len)) = path_and_number(&mut line) else {
        return false;
    };
    let authority = memory.authority.get_mut(..usize::from(len));
    let (Some(file), Some(authority)) = (File::open(path), authority) else {
        return false;
    };
    if !file.read(0, authority) {
        return false;
    }
    let mut tls: TlsConnection<'_, _, Aes128GcmSha256> =
        TlsConnection::new(uart, &mut memory.incoming, &mut memory.outgoing);
    let config = TlsConfig::new().with_server_name("localhost");
    let provider = Provider {
        random: Counter(u64::from(Clock::now(&mut { clock }).as_millis() as u32)),
        verifier: CertVerifier::new(Certificate::X509(authority)),
    };
    if tls.open(TlsContext::new(&config, provider)).is_err() {
        log("TLS failed\n");
        return false;
    }
    log("TLS is open\n");
    tell("tls", u32::try_from(size_of_val(&tls)).unwrap_or(0));
    publish(tls, clock, &mut memory.mqtt).is_ok()
}

fn publish(
    tls: TlsConnection<'_, Uart, Aes128GcmSha256>,
    clock: Millis,
    buffers: &mut Buffers<128, 192, 128, 2>,
) -> Result<(), Error<TlsError>> {
    let (mut client, input) = buffers.client(Config::default());
    let mut connect = Connect::new(Version::V5, "fw-tls");
    // A read that ends in the middle of a record would lose it. So reads wait without a limit, and keep-alive must be off.
    connect.keep_alive = 0;
    let mut connection = Connection::new(Patient(tls), &mut client, input, clock, &connect)?;
    let mut acknowledged = 0;
    while acknowledged < MESSAGES {
        let now = connection.now();
        let (event, client) = connection.next()?;
        match event {
            Some(Event::Connected { .. }) => {}
            Some(Event::Acknowledged { .. }) => acknowledged += 1,
            _ => continue,
        }
        if acknowledged < MESSAGES {
            client.publish(&Outgoing::new(TOPIC, QoS::AtLeastOnce, b"secret"), now)?;
        }
    }
    connection.disconnect()
}

/// Numbers that anybody can guess: the emulated board has no source of random ones. A device must use its own.
struct Counter(u64);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        let [.., a, b, c, d] = self.next_u64().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let number = self.next_u64().to_be_bytes();
            for (place, byte) in part.iter_mut().zip(number) {
                *place = byte;
            }
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// What `embedded-tls` asks for; see the type.
impl CryptoRng for Counter {}

/// Random numbers and the trusted authority, for TLS.
struct Provider<'a> {
    random: Counter,
    verifier: CertVerifier<'a, Aes128GcmSha256, NoClock, 2_048>,
}

impl CryptoProvider for Provider<'_> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.random
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut self.verifier)
    }

    /// Only a client with a certificate signs.
    fn signer(&mut self) -> Result<(impl SignerMut<DerSignature>, SignatureScheme), TlsError> {
        Err::<(SigningKey, _), _>(TlsError::InvalidPrivateKey)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    log("panic\n");
    exit(false)
}
