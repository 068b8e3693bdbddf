//! The handle under tokio, where things go wrong.

use std::time::Duration;

use mqtt_tokio::proto::{QoS, TopicName, Version};
use mqtt_tokio::{Error, Handle, Options, Outgoing};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

mqtt_testing::handles!(Handle::start, run);
mqtt_testing::services!(Handle::start, run, 20_000);

#[test]
fn a_request_has_a_time_limit() {
    let broker = mqtt_testing::peers::Mosquitto::start("");
    let mut options = Options::new("127.0.0.1", broker.port);
    options.version = Version::V5;
    let request = Outgoing::new(TopicName::from_static("nobody"), QoS::AtMostOnce, b"");
    run(async {
        let handle = Handle::connect(options).await.unwrap();
        let response = handle.request(&request, Duration::from_millis(20)).await;
        assert!(matches!(response, Err(Error::TimedOut(_))), "{response:?}");
    });
}
