//! `mqtt broker --web`: serves a page that shows the state of the broker, and the WebSocket for the page, on one port.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use mqtt_broker_host::transport::websocket::{Origins, WebSocketServerOptions, is_this_machine};
use mqtt_broker_host::{Connected, Control, Layers};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tracing::info;

use crate::local_http::{respond, serve_each};

/// How many clients the page lists.
const CLIENTS: usize = 1_000;
/// The beginning of the page's request for WebSocket.
const UPGRADE: &[u8] = b"GET /mqtt ";
/// The page loads nothing from other hosts, and connects to this broker only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The files of the page: path, type and content. `mqtt.min.js` is MQTT.js; its licence is in the same folder.
const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page.css"),
    ),
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page.js"),
    ),
    (
        "/mqtt.min.js",
        "text/javascript; charset=utf-8",
        include_str!("mqtt.min.js"),
    ),
    (
        "/licence",
        "text/plain; charset=utf-8",
        include_str!("mqttjs-licence.txt"),
    ),
];

/// Serves the page, if a listener is set.
pub(crate) async fn show(listener: Option<TcpListener>, control: Control) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    if let Ok(address) = listener.local_addr() {
        info!(web = %address, "a page is served over HTTP");
    }
    let layers = Arc::new(layers());
    serve_each(listener, move |stream| {
        serve(stream, control.clone(), Arc::clone(&layers))
    })
    .await;
}

/// Returns the layers of WebSocket for pages of this machine. Other pages in the same browser cannot connect.
fn layers() -> Layers {
    let mut options = WebSocketServerOptions::default();
    options.origins = Origins::ThisMachine;
    let mut layers = Layers::default();
    layers.websocket = Some(options);
    layers
}

/// Passes a connection with a WebSocket request to the broker, and answers all other requests.
async fn serve(stream: TcpStream, control: Control, layers: Arc<Layers>) {
    let mut first = [0; UPGRADE.len()];
    // A browser sends its request in one piece. A request in smaller pieces is answered as a request for a page.
    if matches!(stream.peek(&mut first).await, Ok(n) if first.get(..n) == Some(UPGRADE)) {
        control.serve(stream, layers).await;
        return;
    }
    respond(stream, |request| answer(request, &control)).await;
}

async fn answer(
    request: Request<Incoming>,
    control: &Control,
) -> Result<Response<Full<Bytes>>, Infallible> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let host = request.headers().get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (status, kind, body) = if !is_this_machine(host) {
        // A page of another host whose name resolves to this machine must not read the content of this page.
        let text = "the host must be localhost or a loopback address\n";
        (StatusCode::FORBIDDEN, TEXT, Bytes::from(text))
    } else if request.method() != Method::GET {
        let text = "the method must be GET\n";
        (StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from(text))
    } else if request.uri().path() == "/clients" {
        let clients = control.clients(CLIENTS).await.unwrap_or_default();
        let text = Bytes::from(as_json(&clients));
        (StatusCode::OK, "application/json", text)
    } else {
        let wanted = |(path, ..): &&(&str, _, _)| *path == request.uri().path();
        match FILES.iter().find(wanted) {
            Some((_, kind, text)) => (StatusCode::OK, *kind, Bytes::from(*text)),
            None => {
                let text = "there is no such page\n";
                (StatusCode::NOT_FOUND, TEXT, Bytes::from(text))
            }
        }
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn as_json(clients: &[Connected]) -> String {
    let client = |client: &Connected| {
        json!({
            "id": client.client_id,
            "user": client.user_name,
            "version": client.version.to_string(),
            "address": client.address.map(|address| address.to_string()),
            "subscriptions": client.subscriptions,
        })
    };
    serde_json::Value::from_iter(clients.iter().map(client)).to_string()
}
