//! Subscribes, publishes three messages at each quality of service, and shows the received ones on the page. `examples/page.html`
//! describes how to build and open the page.

#[cfg(target_family = "wasm")]
mod page {
    use std::time::Duration;

    use mqtt_web::proto::{QoS, Version};
    use mqtt_web::{Error, Handle, Options};

    /// Adds a line to the page.
    fn show(line: &str) {
        let document = web_sys::window().and_then(|window| window.document());
        let Some(document) = document else {
            return;
        };
        if let (Some(body), Ok(paragraph)) = (document.body(), document.create_element("p")) {
            paragraph.set_text_content(Some(line));
            let _ = body.append_child(&paragraph);
        }
    }

    /// Returns the URL after the `#` of the page's address, or that of a local broker, and the number of rounds after a comma.
    fn settings() -> (String, usize) {
        let hash = web_sys::window().and_then(|window| window.location().hash().ok());
        let hash = hash.unwrap_or_default();
        let (url, rounds) = hash
            .trim_start_matches('#')
            .split_once(',')
            .unwrap_or(("ws://127.0.0.1:8083/mqtt", "3"));
        (url.to_owned(), rounds.parse().unwrap_or(3))
    }

    /// Publishes in each round at each quality of service, and receives these messages. If a connection is cut meanwhile, a QoS 1
    /// message may come twice and a QoS 0 message not at all, so rounds after the third use only QoS 2.
    async fn run(url: &str, rounds: usize, version: Version) -> Result<(), Error> {
        let mut options = Options::from_url(url)?;
        options.version = version;
        options.client_id = format!("page-{version}");
        options.clean_start = false;
        options.session_expiry = 60;
        options.back_off.first = Duration::from_millis(20);
        let handle = Handle::start(options);
        handle.connected().await?;
        // The broker keeps the session of the other version, whose subscriptions would match the same topic.
        let topic = format!("web/echo/{version}");
        let mut echoes = handle.subscribe(&topic, QoS::ExactlyOnce).await?;
        let (mut wrong, mut heard) = (0, 0);
        for round in 0..rounds {
            let all = [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce];
            for qos in all.into_iter().take(if rounds > 3 { 1 } else { 3 }) {
                let payload = format!("{round} at {}", qos.get());
                drop(handle.publish(&topic, qos, false, &payload).await?);
                if let Some(message) = echoes.next().await {
                    heard += 1;
                    if message.payload != payload.as_bytes() {
                        wrong += 1;
                        show(&format!("heard {message:?} instead of {payload:?}"));
                    }
                }
            }
        }
        show(&format!(
            "version {version} heard {heard}, {wrong} of them wrong"
        ));
        let unsent = handle.close(Duration::from_secs(5)).await;
        show(&format!("version {version} left {} messages", unsent.len()));
        Ok(())
    }

    /// Runs the example and shows its result.
    pub(crate) async fn start() {
        let (url, rounds) = settings();
        for version in [Version::V311, Version::V5] {
            if let Err(error) = run(&url, rounds, version).await {
                show(&format!("failed: {error}"));
            }
        }
        show("done");
    }
}

#[cfg(target_family = "wasm")]
fn main() {
    wasm_bindgen_futures::spawn_local(page::start());
}

#[cfg(not(target_family = "wasm"))]
fn main() {
    eprintln!("this program runs in a browser: see examples/page.html");
}
