//! `mqtt broker --health`: serves the state of the broker over HTTP, for supervisors and for Prometheus.

use std::convert::Infallible;
use std::fmt::Write as _;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use mqtt_broker_host::Control;
use mqtt_broker_host::broker::Statistics;
use tokio::net::TcpListener;

use crate::local_http::{respond, serve_each};

/// The content type for Prometheus.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// Answers requests while it is polled.
pub(crate) async fn serve(listener: TcpListener, control: Control) {
    serve_each(listener, move |stream| {
        let control = control.clone();
        async move { respond(stream, |request| answer(request, &control)).await }
    })
    .await;
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
            Some(statistics) => (StatusCode::OK, PROMETHEUS, metrics(&statistics)),
            None => gone(),
        },
        (&Method::GET, _) => {
            let text = "the paths are /health and /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
        _ => {
            let text = "the method must be GET\n".to_owned();
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
    let text = "the broker is shutting down\n".to_owned();
    (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text)
}

/// The value of a metric.
type Value = fn(&Statistics) -> u64;

/// Makes the rows of [`METRICS`] of names, fields of [`Statistics`] and helps.
macro_rules! metrics {
    ($($name:ident = $field:ident, $help:literal;)*) => {
        &[$((stringify!($name), $help, |statistics| statistics.$field)),*]
    };
}

/// The metrics: name, help and value. Prometheus expects names of counters to end with `_total`.
const METRICS: &[(&str, &str, Value)] = metrics! {
    uptime_seconds = uptime, "Seconds since the start";
    clients_connected = clients_connected, "Clients connected";
    clients_connected_maximum = clients_maximum, "The most clients at once";
    sessions = sessions, "Sessions of clients that are connected or away";
    sessions_expired_total = clients_expired, "Sessions that expired";
    packets_received_total = packets_received, "Packets received";
    bytes_received_total = bytes_received, "Bytes received";
    bytes_sent_total = bytes_sent, "Bytes sent";
    publish_received_total = publish_received, "PUBLISH packets received";
    publish_sent_total = publish_sent, "PUBLISH packets sent";
    publish_dropped_total = publish_dropped, "Messages dropped";
    publish_expired_total = publish_expired, "Messages that expired";
    payload_bytes_received_total = payload_received, "Bytes of payload received";
    payload_bytes_sent_total = payload_sent, "Bytes of payload sent";
    subscriptions = subscriptions, "Subscriptions";
    subscriptions_shared = shared_subscriptions, "Shared subscriptions";
    retained_messages = retained, "Retained messages";
    retained_bytes = retained_bytes, "Bytes of retained messages";
    queued_messages = queued, "Messages queued";
    connection_bytes = connection_bytes, "Bytes of outgoing packets, messages in flight and topic aliases";
    input_bytes = input_bytes, "Bytes of packets that have not arrived completely";
    subscription_bytes = subscription_bytes, "Bytes of subscriptions";
    queued_bytes = queued_bytes, "Bytes of queued messages";
};

/// Returns the statistics in the format of Prometheus.
fn metrics(statistics: &Statistics) -> String {
    let mut text = String::new();
    for &(name, help, value) in METRICS {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        let name = format!("mqtt_broker_{name}");
        let value = value(statistics);
        // Writing to a `String` does not fail.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    text
}
