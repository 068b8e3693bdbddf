//! A page that connects to a broker, subscribes, publishes, and lists the received messages. The README describes how to build and open it.

#[cfg(target_family = "wasm")]
mod page {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use js_sys::Reflect;
    use mqtt_web::proto::{QoS, Version};
    use mqtt_web::{ConnectionEvent, Error, Handle, Options, ReceivedMessage};
    use wasm_bindgen::closure::Closure;
    use wasm_bindgen::{JsCast, JsValue};
    use wasm_bindgen_futures::spawn_local;
    use web_sys::{Document, Element, Event};

    /// How many messages the page lists.
    const LISTED: u32 = 200;
    /// How many characters of a payload it shows.
    const SHOWN: usize = 1_000;

    /// The client, once the user has connected.
    type Client = Rc<RefCell<Option<Handle>>>;

    fn document() -> Option<Document> {
        web_sys::window().and_then(|window| window.document())
    }

    fn element(id: &str) -> Option<Element> {
        document().and_then(|document| document.get_element_by_id(id))
    }

    fn property(id: &str, name: &str) -> Option<JsValue> {
        Reflect::get(element(id)?.as_ref(), &name.into()).ok()
    }

    /// Returns the text of an input field.
    fn value(id: &str) -> String {
        let value = property(id, "value").and_then(|value| value.as_string());
        value.unwrap_or_default()
    }

    fn qos(id: &str) -> QoS {
        let number = value(id).parse().ok();
        number.and_then(QoS::new).unwrap_or(QoS::AtMostOnce)
    }

    fn show(id: &str, text: &str) {
        if let Some(element) = element(id) {
            element.set_text_content(Some(text));
        }
    }

    /// Returns an error and its sources in one line.
    fn sentence(error: &Error) -> String {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }

    /// Calls `act` for each event of this name.
    fn on(id: &str, event: &str, act: impl Fn() + 'static) {
        let Some(element) = element(id) else {
            return;
        };
        let listener = Closure::<dyn Fn(Event)>::new(move |event: Event| {
            // A form would load the page again.
            event.prevent_default();
            act();
        });
        let _ = element.add_event_listener_with_callback(event, listener.as_ref().unchecked_ref());
        // It lives as long as the page.
        listener.forget();
    }

    fn connect(client: &Client) {
        close(client);
        let options = match Options::from_url(value("url").trim()) {
            Ok(options) => options,
            Err(error) => return show("status", &sentence(&error)),
        };
        let handle = Handle::start(with_credentials(with_session(options)));
        spawn_local(tell_events(handle.clone()));
        *client.borrow_mut() = Some(handle);
    }

    /// Lets the server keep the subscriptions for a minute without a connection: a message that the page publishes meanwhile is sent before
    /// the page could subscribe again.
    fn with_session(mut options: Options) -> Options {
        options.version = Version::V5;
        options.client_id = format!("page-{}", js_sys::Math::random());
        options.clean_start = false;
        options.session_expiry = 60;
        options
    }

    fn with_credentials(mut options: Options) -> Options {
        let (user, password) = (value("user"), value("password"));
        if !user.is_empty() {
            options.user_name = Some(user);
        }
        if !password.is_empty() {
            options.password = Some(password.into_bytes());
        }
        options
    }

    fn close(client: &Client) {
        if let Some(handle) = client.borrow_mut().take() {
            spawn_local(async move {
                handle.close(Duration::from_secs(1)).await;
            });
        }
    }

    /// Shows what happens to the connection.
    async fn tell_events(handle: Handle) {
        let mut events = handle.events();
        drop(handle);
        while let Some(event) = events.next().await {
            match event {
                ConnectionEvent::Connecting => show("status", "connecting"),
                ConnectionEvent::Connected(_) => show("status", "connected"),
                ConnectionEvent::Lost(why) => {
                    show("status", &format!("{}; trying again", sentence(&why)));
                }
                ConnectionEvent::Stopped(Error::Stopped) => show("status", "not connected"),
                ConnectionEvent::Stopped(why) => show("status", &sentence(&why)),
                _ => {}
            }
        }
    }

    async fn subscribe(handle: Handle) {
        let filter = value("filter");
        let mut messages = match handle.subscribe(&filter, qos("filter-qos")).await {
            Ok(messages) => messages,
            Err(error) => return show("result", &sentence(&error)),
        };
        drop(handle);
        show("result", &format!("subscribed to {filter}"));
        while let Some(message) = messages.next().await {
            list(&message);
        }
    }

    async fn publish(handle: Handle) {
        let retain = property("retain", "checked").is_some_and(|checked| checked.is_truthy());
        let (topic, payload) = (value("topic"), value("payload"));
        let ticket = handle
            .publish(&topic, qos("qos"), retain, payload.as_bytes())
            .await;
        match ticket {
            Ok(ticket) => show("result", &format!("{topic}: {}", ticket.await)),
            Err(error) => show("result", &sentence(&error)),
        }
    }

    /// Adds a message to the top of the list.
    fn list(message: &ReceivedMessage) {
        let (Some(document), Some(messages)) = (document(), element("messages")) else {
            return;
        };
        let Ok(item) = document.create_element("li") else {
            return;
        };
        let retained = if message.retain { ", retained" } else { "" };
        let text = format!(
            "{} (QoS {}{retained})\n{}",
            message.topic(),
            message.qos.get(),
            readable(&message.payload)
        );
        item.set_text_content(Some(&text));
        let _ = messages.prepend_with_node_1(&item);
        if messages.child_element_count() > LISTED
            && let Some(oldest) = messages.last_element_child()
        {
            oldest.remove();
        }
    }

    /// Returns the beginning of a payload as text, or as hexadecimal digits if it is none.
    fn readable(payload: &[u8]) -> String {
        let is_control = |char: char| char.is_control() && !char.is_whitespace();
        let text = std::str::from_utf8(payload).ok();
        let whole = match text.filter(|text| !text.contains(is_control)) {
            Some(text) => text.chars().take(SHOWN).collect::<String>(),
            None => payload
                .iter()
                .take(SHOWN / 3)
                .map(|byte| format!("{byte:02x} "))
                .collect(),
        };
        if whole.len() < payload.len() {
            format!("{whole}\n({} bytes)", payload.len())
        } else {
            whole
        }
    }

    /// Calls `act` with the client, or reports that there is none.
    fn with_client<F: Future<Output = ()> + 'static>(
        client: &Client,
        act: impl Fn(Handle) -> F + 'static,
    ) -> impl Fn() + 'static {
        let client = Rc::clone(client);
        move || match client.borrow().clone() {
            Some(handle) => spawn_local(act(handle)),
            None => show("result", "not connected: connect first"),
        }
    }

    /// Lets the forms of the page work.
    pub(crate) fn start() {
        let client = Client::default();
        let (connecting, closing) = (Rc::clone(&client), Rc::clone(&client));
        on("connect", "submit", move || connect(&connecting));
        on("close", "click", move || close(&closing));
        on("subscribe", "submit", with_client(&client, subscribe));
        on("publish", "submit", with_client(&client, publish));
        if let Some(body) = document().and_then(|document| document.body()) {
            let _ = body.set_attribute("data-ready", "yes");
        }
    }
}

#[cfg(target_family = "wasm")]
fn main() {
    page::start();
}

#[cfg(not(target_family = "wasm"))]
fn main() {
    eprintln!("this program runs in a browser: see examples/client.html");
}
