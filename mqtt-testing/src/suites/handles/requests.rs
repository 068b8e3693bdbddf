//! Tests of requests and their responses (5).

use std::ops::Deref;
use std::time::Duration;

use futures_lite::future::zip;
use mqtt_adapter_core::proto::{QoS, TopicName, Version};
use mqtt_adapter_core::{Error, Handle, Message, Options, Outgoing};

use super::services::brokers;
use super::{connect, options};

/// Ten requests at once get their responses.
pub async fn a_request_is_answered_in_one_call<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    for broker in brokers() {
        let client = async |id: &str| {
            let mut options = options(broker.port());
            options.version = Version::V5;
            options.client_id = id.into();
            connect(&start, options).await.unwrap()
        };
        let (asker, answerer) = (client("asker").await, client("answerer").await);
        let topic = TopicName::from_static("double");
        let ready = answerer.subscribe("double", QoS::AtLeastOnce).await;
        let respond = answerer.respond("double", QoS::AtLeastOnce, async |request| {
            let n = super::number(&request.payload);
            (2 * n).to_string().into_bytes()
        });
        let ask = async {
            // The subscription of the responder is sent before this message.
            let fence = answerer.publish("fence", QoS::AtLeastOnce, false, b"");
            let _ = fence.await.unwrap().await;
            let ask = async |n: u32| {
                let payload = n.to_string();
                let request = Outgoing::new(topic, QoS::AtLeastOnce, payload.as_bytes());
                let response = asker.await_response(request).await.unwrap();
                assert_eq!(super::number(&response.payload), 2 * n);
            };
            for n in 0..10 {
                zip(ask(n), ask(100 + n)).await;
            }
            let _ = answerer.close(Duration::from_secs(60)).await;
        };
        drop(ready);
        let (responded, ()) = zip(respond, ask).await;
        responded.unwrap();
    }
}

/// 3.1.1 has no correlation data. A closed client ends its requests.
pub async fn a_request_that_cannot_be_answered_fails<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = crate::peers::Mosquitto::start("");
    let request = Outgoing::new(TopicName::from_static("nobody"), QoS::AtMostOnce, b"");
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let asked = handle.await_response(request).await;
    assert!(matches!(asked, Err(Error::Options(_))), "{asked:?}");
    let mut options = options(broker.port);
    options.version = Version::V5;
    let handle = connect(&start, options).await.unwrap();
    let close = async {
        let fence = handle.publish("fence", QoS::AtLeastOnce, false, b"").await;
        let _ = fence.unwrap().await;
        handle.close(Duration::from_secs(60)).await
    };
    // The topic has no subscriber, which no acknowledgement reports at QoS 0.
    let (asked, _) = zip(handle.await_response(request), close).await;
    assert!(matches!(asked, Err(Error::Stopped)), "{asked:?}");
}

/// Checks that a request without a response ends with [`Error::TimedOut`]. `request` connects with the options, sends the request
/// and awaits its response for at most that time.
pub async fn unanswered(
    request: impl AsyncFnOnce(Options, &Outgoing<'_>, Duration) -> Result<Message, Error>,
) {
    let broker = crate::peers::Mosquitto::start("");
    let mut options = options(broker.port);
    options.version = Version::V5;
    let nobody = Outgoing::new(TopicName::from_static("nobody"), QoS::AtMostOnce, b"");
    let response = request(options, &nobody, Duration::from_millis(20)).await;
    assert!(matches!(response, Err(Error::TimedOut(_))), "{response:?}");
}
