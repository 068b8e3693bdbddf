//! Implements a client with stages for one task.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use mqtt_broker_host::transport::Stack;
use mqtt_broker_host::transport::bytes::BytesMut;
use mqtt_broker_host::transport::tls::{Roots, TlsConnector, TlsOptions};
use mqtt_broker_host::transport::websocket::{WebSocketClient, WebSocketOptions};
use mqtt_proto::{
    Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::encode;
use mqtt_testing::peers::Authority;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) stack: Stack,
    plain: BytesMut,
    version: Version,
}

/// Returns TLS settings that trust an authority.
pub(crate) fn trusting(authority: &Authority) -> TlsOptions {
    let mut options = TlsOptions::default();
    options.roots = Roots::Ca(authority.source());
    options
}

/// Returns stages with TLS.
pub(crate) fn tls(options: &TlsOptions) -> Stack {
    let connector = TlsConnector::new(options.clone()).unwrap();
    Stack::new().with(connector.stage("localhost").unwrap())
}

/// Adds WebSocket on top of the stages.
pub(crate) fn websocket(stack: Stack) -> Stack {
    stack.with(WebSocketClient::new("localhost", &WebSocketOptions::default()).unwrap())
}

/// Returns a WebSocket stage with the header of a proxy.
pub(crate) fn forwarded(address: &str) -> Stack {
    let mut options = WebSocketOptions::default();
    let header = ("X-Forwarded-For".to_owned(), address.to_owned());
    options.headers.push(header);
    Stack::new().with(WebSocketClient::new("localhost", &options).unwrap())
}

impl Client {
    pub(crate) async fn tcp(address: SocketAddr, stack: Stack) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::new(Box::new(stream), stack)
    }

    pub(crate) async fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).await.unwrap();
        Self::new(Box::new(stream), Stack::new())
    }

    pub(crate) fn new(stream: Box<dyn Stream>, stack: Stack) -> Self {
        Self {
            stream,
            stack,
            plain: BytesMut::new(),
            version: Version::V5,
        }
    }

    /// Performs the handshakes and sends CONNECT; the error is that of the stages.
    pub(crate) async fn try_connect(&mut self, connect: &Connect<'_>) -> io::Result<Vec<u8>> {
        self.version = connect.version;
        self.open().await?;
        self.send(&Packet::Connect(*connect)).await?;
        self.next().await
    }

    /// Performs the handshakes of the stages.
    pub(crate) async fn open(&mut self) -> io::Result<()> {
        self.flush().await?;
        while !self.stack.is_open() {
            self.read().await?;
        }
        Ok(())
    }

    pub(crate) async fn connect(&mut self, version: Version, client_id: &str) {
        let connect = Connect {
            keep_alive: 0,
            ..Connect::new(version, client_id)
        };
        let connack = self.try_connect(&connect).await.expect("CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.stack.outgoing().is_empty() {
            let n = self.stream.write(self.stack.outgoing()).await?;
            self.stack.sent(n);
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut space = [0; 4_096];
        let result = match self.stream.read(&mut space).await? {
            0 => {
                self.stack.end_of_file()?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            n => self.stack.input(&space[..n], &mut self.plain),
        };
        self.flush().await?;
        Ok(result?)
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let bytes = encode(packet, self.version);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[self.stack.output(rest)..];
            self.flush().await?;
        }
        Ok(())
    }

    /// Returns the bytes of the next packet.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Decoded::Packet { consumed, .. } =
                Packet::decode(&self.plain, self.version, MAX_PACKET).expect("a packet")
            {
                return Ok(self.plain.split_to(consumed).to_vec());
            }
            self.read().await?;
        }
    }

    /// Subscribes. Returns the reason code of the answer.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> u8 {
        let list = [Subscription::new(
            TopicFilter::new(filter).unwrap(),
            QoS::AtMostOnce,
        )];
        let subscribe = Subscribe::new(PacketId::new(1).unwrap(), &list[..]);
        self.send(&Packet::Subscribe(subscribe)).await.unwrap();
        *self.next().await.unwrap().last().unwrap()
    }

    /// Publishes at QoS 1 in MQTT 5, and returns the code of PUBACK.
    pub(crate) async fn publish(&mut self, topic: &str) -> u8 {
        let publish = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(TopicName::new(topic).unwrap(), b"x")
        };
        self.send(&Packet::Publish(publish)).await.unwrap();
        let puback = self.next().await.unwrap();
        assert_eq!(puback[0], 0x40);
        *puback.get(4).unwrap_or(&0)
    }

    /// Publishes to a topic with its own subscription, and receives the message.
    pub(crate) async fn echo(&mut self, topic: &str, payload: &[u8]) {
        let publish = Publish::new(TopicName::new(topic).unwrap(), payload);
        self.send(&Packet::Publish(publish)).await.unwrap();
        let packet = self.next().await.unwrap();
        assert!(packet.ends_with(payload), "{} bytes", packet.len());
    }

    pub(crate) async fn ping(&mut self) {
        self.send(&Packet::PingReq).await.unwrap();
        assert_eq!(self.next().await.unwrap(), [0xD0, 0]);
    }
}
