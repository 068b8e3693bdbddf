//! The session over TLS 1.3 by `embedded-tls`, without a heap. The server needs a certificate for `localhost`, signed by the
//! given authority.
//!
//! `cargo run -p sansio-mqtt-embedded --example embedded_tls -- 127.0.0.1:8883 ca.der`

use std::net::TcpStream;
use std::time::{Instant as Now, SystemTime};

use embedded_io_adapters::std::FromStd;
use embedded_tls::blocking::TlsConnection;
use embedded_tls::pki::CertVerifier;
use embedded_tls::{
    Aes128GcmSha256, Certificate, CryptoProvider, CryptoRngCore, SignatureScheme, TlsConfig,
    TlsContext, TlsError, TlsVerifier,
};
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::proto::{Connect, QoS, TopicName, Version};
use mqtt_embedded::session::{Config, Event, Outgoing};
use mqtt_embedded::{Buffers, Patient};
use p256::ecdsa::signature::SignerMut;
use p256::ecdsa::{DerSignature, SigningKey};
use rand::rngs::OsRng;

const TOPIC: TopicName<'static> = TopicName::from_static("examples/tls");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8883".into());
    let authority = std::fs::read(arguments.next().unwrap_or_else(|| "ca.der".into()))?;

    let (mut incoming, mut outgoing) = ([0; 16_640], [0; 4_096]);
    let stream = FromStd::new(TcpStream::connect(address)?);
    let mut tls: TlsConnection<'_, _, Aes128GcmSha256> =
        TlsConnection::new(stream, &mut incoming, &mut outgoing);
    let config = TlsConfig::new().with_server_name("localhost");
    let provider = Provider {
        random: OsRng,
        verifier: CertVerifier::new(Certificate::X509(&authority)),
    };
    tls.open(TlsContext::new(&config, provider))
        .map_err(|error| format!("TLS: {error:?}"))?;

    let start = Now::now();
    let clock = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut buffers = Buffers::<128, 192, 128, 2>::new();
    let (mut client, input) = buffers.client(Config::default());
    let mut connect = Connect::new(Version::V5, "tls");
    // A read that ends in the middle of a record would lose it. So reads wait without a limit, and keep-alive must be off.
    connect.keep_alive = 0;
    let mut connection = Connection::new(Patient(tls), &mut client, input, clock, &connect)?;
    let mut acknowledged = 0;
    while acknowledged < 5 {
        let now = connection.now();
        let (event, client) = connection.next()?;
        match event {
            Some(Event::Connected { .. }) => {}
            Some(Event::Acknowledged { .. }) => acknowledged += 1,
            _ => continue,
        }
        let payload = format!("secret {acknowledged}");
        client.publish(
            &Outgoing::new(TOPIC, QoS::AtLeastOnce, payload.as_bytes()),
            now,
        )?;
    }
    connection.disconnect()?;
    println!("{acknowledged} messages acknowledged over TLS");
    Ok(())
}

/// Random numbers and the trusted authority, for TLS.
struct Provider<'a> {
    random: OsRng,
    verifier: CertVerifier<'a, Aes128GcmSha256, SystemTime, 2_048>,
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
