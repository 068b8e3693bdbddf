//! `mqtt broker --health`: the state of the broker over HTTP, for supervisors and for Prometheus.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mqtt_broker_host::Control;
use mqtt_broker_host::broker::Statistics;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::failure::{Failure, fail};

/// Requests that are served at once.
const REQUESTS: usize = 16;
/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when a connection cannot be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The type of Prometheus's text.
const METRICS: &str = "text/plain; version=0.0.4";

/// Listens for requests. Whoever can connect can read how much the broker does, so only this machine can.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() {
        return Err(fail(format!(
            "health {address}: must be an address of this machine only, such as 127.0.0.1:9883"
        )));
    }
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| fail(format!("cannot bind {address}: {error}")))
}

/// Answers requests, as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, control: Control) {
    let places = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return; // It is never closed.
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let control = control.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &control));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Who is too slow or asks for nonsense is not answered.
            let _ = timeout(PATIENCE, served).await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    control: &Control,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => match control.statistics().await {
            Some(_) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            None => gone(),
        },
        (&Method::GET, "/metrics") => match control.statistics().await {
            Some(statistics) => (StatusCode::OK, METRICS, metrics(&statistics)),
            None => gone(),
        },
        (&Method::GET, _) => {
            let text = "there are /health and /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
        _ => {
            let text = "only GET\n".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn gone() -> (StatusCode, &'static str, String) {
    let text = "the broker ends\n".to_owned();
    (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text)
}

/// Names, kinds and meanings of what is told, in the order of [`values`].
const ROWS: [(&str, &str, &str); 20] = [
    ("uptime_seconds", "gauge", "Seconds since the start"),
    ("clients_connected", "gauge", "Clients connected"),
    (
        "clients_connected_maximum",
        "gauge",
        "The most clients at once",
    ),
    ("sessions", "gauge", "Of clients connected or away"),
    ("sessions_expired_total", "counter", "Sessions that expired"),
    ("packets_received_total", "counter", "Packets received"),
    ("bytes_received_total", "counter", "Bytes received"),
    ("bytes_sent_total", "counter", "Bytes sent"),
    (
        "publish_received_total",
        "counter",
        "PUBLISH packets received",
    ),
    ("publish_sent_total", "counter", "PUBLISH packets sent"),
    ("publish_dropped_total", "counter", "Messages dropped"),
    ("publish_expired_total", "counter", "Messages that expired"),
    (
        "payload_bytes_received_total",
        "counter",
        "Bytes of payload",
    ),
    ("payload_bytes_sent_total", "counter", "Bytes of payload"),
    ("subscriptions", "gauge", "Subscriptions"),
    ("subscriptions_shared", "gauge", "Shared ones"),
    ("retained_messages", "gauge", "Retained messages"),
    ("retained_bytes", "gauge", "Bytes of them"),
    ("queued_messages", "gauge", "Messages queued"),
    ("queued_bytes", "gauge", "Bytes of them"),
];

const fn values(s: &Statistics) -> [u64; 20] {
    [
        s.uptime,
        s.clients_connected,
        s.clients_maximum,
        s.sessions,
        s.clients_expired,
        s.packets_received,
        s.bytes_received,
        s.bytes_sent,
        s.publish_received,
        s.publish_sent,
        s.publish_dropped,
        s.publish_expired,
        s.payload_received,
        s.payload_sent,
        s.subscriptions,
        s.shared_subscriptions,
        s.retained,
        s.retained_bytes,
        s.queued,
        s.queued_bytes,
    ]
}

/// Returns the statistics as Prometheus reads them.
fn metrics(statistics: &Statistics) -> String {
    let mut text = String::new();
    for ((name, kind, help), value) in ROWS.iter().zip(values(statistics)) {
        let name = format!("mqtt_broker_{name}");
        // A String takes everything.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    text
}
