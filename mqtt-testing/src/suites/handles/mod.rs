//! Tests the promises of a handle under any runtime: reconnection, limits, policies, delivery, closing.

#![allow(
    clippy::let_underscore_future,
    reason = "tickets that nobody waits for"
)]
#![allow(clippy::missing_panics_doc, reason = "each panics when it is not so")]

mod connection;
mod publishing;
mod receiving;
mod requests;
mod store;
mod subscribing;

pub mod children;
pub mod services;

use std::ops::Deref;
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, Subscription, TopicFilter, TopicName, Version};
use mqtt_adapter_core::{Error, Handle, Options, Outgoing};
use mqtt_session::ServerEvent;

use crate::peers::{Reaction, ScriptedServer};

pub use connection::*;
pub use publishing::*;
pub use receiving::*;
pub use requests::*;
pub use store::*;
pub use subscribing::*;

/// Writes the tests of this suite into the calling module. `$start` starts a client with the given options, `$run` runs a future
/// to its end.
#[macro_export]
macro_rules! handles {
    ($start:expr, $run:expr) => {
        $crate::handles_through! { $start, $run }
        $crate::handles! { $start, $run;
            a_failed_first_attempt_returns_its_reason
            errors_have_their_source_and_print_no_text_twice
            a_ticket_of_qos_0_ends_when_the_transport_took_its_bytes
            messages_outlive_their_client
            a_note_and_its_message_are_stored_together
            a_store_that_cannot_be_used_is_an_error
            a_full_store_is_reported_and_has_room_again
        }
        $crate::handles! { $start, $run, module_path!();
            each_reason_is_logged_once
            stored_messages_take_little_more_than_their_bytes
            a_program_that_ends_after_its_tickets_has_sent_at_qos_0
        }

        #[test]
        #[ignore = "other tests start it as a process of its own"]
        fn in_a_process_of_its_own() {
            $run($crate::suites::handles::children::act($start));
        }
    };
    ($start:expr, $run:expr; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $run($crate::suites::handles::$name($start));
        })*
    };
    ($start:expr, $run:expr, $module:expr; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $run($crate::suites::handles::children::$name($start, $module));
        })*
    };
}

/// Writes the tests of [`handles!`] that also pass with a proxy between the client and its server. The other tests need to see
/// that no server accepts the connection or reads the bytes.
#[macro_export]
macro_rules! handles_through {
    ($start:expr, $run:expr) => {
        $crate::handles! { $start, $run;
            a_broker_that_disconnects_after_connack_is_dialled_less_often
            a_server_that_does_not_answer_connect_is_named
            an_oversize_packet_s_error_names_the_setting
            a_session_only_the_server_knows_goes_on_or_is_ended
            connected_waits_without_a_time_limit
            a_short_good_connection_is_followed_by_a_quick_reconnect
            events_have_the_fields_of_connack
            an_authentication_failure_stops_a_client_that_wants_it
            a_take_over_stops_a_client_that_wants_it
            credentials_are_asked_for_before_each_attempt
            publishing_faster_than_the_broker_takes_waits
            messages_published_offline_follow_the_policy
            close_flushes_disconnects_and_returns_unacknowledged_messages
            publishing_while_a_connection_is_ended_is_accepted
            large_messages_arrive
            a_slow_subscriber_loses_nothing
            a_message_is_acknowledged_when_the_next_one_is_asked_for
            a_message_is_acknowledged_on_arrival
            a_message_is_acknowledged_by_hand_or_comes_again
            a_stream_that_is_not_read_blocks_no_other_answer
            a_backlog_beyond_the_queue_comes_before_the_answer
            unclaimed_messages_are_held_or_discarded
            a_server_beyond_the_receive_maximum_is_reported_once_and_served
            messages_at_qos_0_are_dropped_as_the_policy_says
            a_client_pings_while_messages_come_without_end
            a_lost_session_is_subscribed_again
            subscriptions_are_granted_refused_and_given_up
            a_refused_subscription_is_an_error
            subscriptions_of_the_options_are_made_with_each_new_session
            a_request_is_answered_in_one_call
            a_request_that_cannot_be_answered_fails
        }
    };
}

/// Writes a module for each scheme of a URL, with the tests of [`handles_through!`]. `$start` starts a client with options and
/// the settings of its transport.
#[macro_export]
macro_rules! handles_over {
    ($start:expr, $run:expr; $($module:ident: $scheme:expr;)*) => {
        $(mod $module {
            use super::*;

            $crate::handles_through!(
                |options| {
                    use $crate::wires::terminator::{End, through};
                    let (options, dial) = through(options, $scheme, End::Clean);
                    $start(options, dial)
                },
                $run
            );
        })*
    };
}

pub(crate) const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// Returns a connected client, or the reason why the first attempt failed.
pub(crate) async fn connect<H: Deref<Target = Handle>>(
    start: &impl Fn(Options) -> H,
    options: Options,
) -> Result<H, Error> {
    let handle = start(options);
    handle.first_attempt().await?;
    Ok(handle)
}

pub(crate) fn options(port: u16) -> Options {
    let mut options = Options::new("127.0.0.1", port);
    options.client_id = "c".into();
    options.back_off.first = Duration::from_millis(2);
    options.back_off.longest = Duration::from_millis(10);
    options
}

/// Returns options with a session that outlives its connections.
pub(crate) fn kept(port: u16, version: Version, client_id: &str) -> Options {
    let mut options = options(port);
    options.version = version;
    options.client_id = client_id.into();
    options.clean_start = false;
    options.session_expiry = u32::MAX;
    options
}

/// Starts a server that accepts connections and does `then`, and does `later` with each packet after CONNECT.
pub(crate) fn accepting(then: Reaction, later: Reaction) -> ScriptedServer {
    ScriptedServer::start(move |event, server| {
        if matches!(event, ServerEvent::Connect(_)) {
            let now = mqtt_session::Instant::from_millis(0);
            server.accept(&Default::default(), now).unwrap();
            return then;
        }
        later
    })
}

pub(crate) fn message(qos: QoS, payload: &[u8]) -> Outgoing<'_> {
    Outgoing::new(TopicName::from_static("a"), qos, payload)
}

pub(crate) fn filter(text: &str) -> Subscription<'_> {
    Subscription::new(TopicFilter::new(text).unwrap(), QoS::ExactlyOnce)
}

/// Publishes the numbers of a range, and waits until the server has them.
pub(crate) async fn publish_numbers(
    handle: &Handle,
    topic: &str,
    qos: QoS,
    numbers: std::ops::Range<u32>,
) {
    let mut tickets = Vec::new();
    for n in numbers {
        let ticket = handle.publish(topic, qos, false, &n.to_string()).await;
        tickets.push(ticket.unwrap());
    }
    for ticket in tickets {
        let outcome = ticket.await;
        assert!(outcome.is_success(), "{outcome}");
    }
}

/// Returns the number in a payload.
pub(crate) fn number(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}
