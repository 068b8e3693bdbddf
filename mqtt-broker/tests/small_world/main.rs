//! Searches a small world in full: the shipping broker with a few clients, one packet identifier, at most three messages, and
//! crashes at any instant that keep any number of the records that are not stored. `docs/JOURNAL.md` says which packet waits for
//! which record. Without any one of these waits a test here fails: `scripts/mutations.py --only small_world` shows it.
//!
//! With optimisation all worlds have three crashes; the largest one has 471,080 states.

mod client;
mod world;

use client::{Client, Command, Message};
use world::{Times, World};

const TOPIC: u8 = b't';

/// Returns how many crashes a world has, and how many in optimised code.
const fn crashes(quick: usize, optimised: usize) -> usize {
    if cfg!(debug_assertions) {
        quick
    } else {
        optimised
    }
}

const fn message(number: u8, qos: u8) -> Message {
    Message {
        topic: TOPIC,
        qos,
        retain: false,
        number,
    }
}

fn publish(number: u8, qos: u8) -> Command {
    Command::Publish(message(number, qos))
}

fn retain(number: u8, qos: u8) -> Command {
    let retain = true;
    Command::Publish(Message {
        retain,
        ..message(number, qos)
    })
}

#[track_caller]
fn search(world: World, crashes: usize) {
    match world.search(crashes) {
        Ok(worlds) => {
            eprintln!("{worlds} worlds with {crashes} crashes");
            assert!(worlds > 10, "{worlds}");
        }
        Err(broken) => panic!("{broken}"),
    }
}

/// Connects a subscriber whose session stays; then one publisher for each script begins.
fn delivery(qos: u8, scripts: &[&[u8]]) -> World {
    let subscriber = Client::new(b's', &[Command::Subscribe(TOPIC, qos)]);
    let publishers = (b'a'..)
        .zip(scripts)
        .map(|(name, _)| Client::new(name, &[]));
    let mut world = World::new(std::iter::once(subscriber).chain(publishers).collect());
    world.settle();
    let times = if qos == 2 {
        Times::Once
    } else {
        Times::OnceOrMore
    };
    for (n, script) in scripts.iter().enumerate() {
        for number in *script {
            world.clients[n + 1].script.push(publish(*number, qos));
            world.laws.push((0, *number, times));
        }
    }
    world
}

/// 3.1.1 [MQTT-4.3.2-2], 5 [MQTT-4.3.2-4]: PUBACK waits for the message.
#[test]
fn what_is_acknowledged_at_qos_1_arrives() {
    search(delivery(1, &[&[1]]), 3);
    search(delivery(1, &[&[1, 2, 3]]), crashes(1, 3));
}

/// 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-8], [MQTT-4.3.3-10] and [MQTT-4.3.3-11]: PUBREC waits for the message with its identifier, PUBCOMP
/// until the identifier is free. 5 [MQTT-4.3.3-6]: PUBREL waits for the record of PUBREC.
#[test]
fn what_is_acknowledged_at_qos_2_arrives_once() {
    search(delivery(2, &[&[1]]), crashes(2, 3));
    search(delivery(2, &[&[1, 2, 3]]), crashes(1, 3));
}

/// 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.4.0-1]: a PUBLISH at QoS 2 waits for the record of its identifier; otherwise another message
/// has the identifier after a crash.
#[test]
fn an_identifier_means_one_message() {
    let mut world = delivery(2, &[]);
    let publisher = Client::new(b'p', &[publish(1, 2), publish(2, 2)]);
    world.clients.push(publisher.forgetful());
    world.laws.push((0, 1, Times::Once));
    world.laws.push((0, 2, Times::Once));
    search(world, crashes(1, 3));
}

/// The same for messages that are sent from a queue.
#[test]
fn what_waits_for_a_client_arrives_once() {
    let mut world = delivery(2, &[&[1, 2]]);
    world.clients[0].script.push(Command::Leave(1, 2));
    search(world, crashes(1, 3));
}

/// 3.1.1 [MQTT-3.2.2-2], 5 [MQTT-3.2.2-3]: CONNACK waits for the record of the session.
#[test]
fn a_session_that_a_client_was_told_of_is_there() {
    search(World::new(vec![Client::new(b'a', &[])]), 3);
}

/// 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: CONNACK waits until the end of the old session is stored.
#[test]
fn a_session_that_was_ended_does_not_come_back() {
    let mut world = delivery(1, &[&[1]]);
    world.laws.clear();
    world.clients[0].script.push(Command::BeginClean);
    search(world, crashes(2, 3));
}

/// 3.1.1 [MQTT-3.1.2-8], 5 [MQTT-3.1.2-7]: CONNACK waits for the record of the will.
#[test]
fn a_will_goes_out_after_a_crash() {
    let mut world = delivery(1, &[]);
    let leaver = Client::new(b'w', &[Command::Vanish]);
    let leaver = leaver.clean().with_will(message(1, 1));
    world.clients.push(leaver);
    world.laws.push((0, 1, Times::OnceOrMore));
    search(world, 3);
}

/// 3.1.1 [MQTT-3.8.4-1], 5 [MQTT-3.8.4-1]: SUBACK waits for the record of the subscription.
#[test]
fn a_subscription_that_was_confirmed_gets_messages() {
    let subscriber = Client::new(b's', &[Command::Subscribe(TOPIC, 1)]);
    let publisher = Client::new(b'p', &[Command::After(0, 1), publish(1, 1)]);
    let mut world = World::new(vec![subscriber, publisher]);
    world.laws.push((0, 1, Times::OnceOrMore));
    search(world, crashes(2, 3));
}

/// 3.1.1 [MQTT-3.10.4-4], 5 [MQTT-3.10.4-4]: UNSUBACK waits for the record that the subscription ended.
#[test]
fn a_subscription_that_was_ended_gets_no_messages() {
    let mut world = delivery(1, &[]);
    world.clients[0].script.push(Command::Unsubscribe(TOPIC));
    let script = [Command::After(0, 2), publish(1, 1)];
    world.clients.push(Client::new(b'p', &script));
    world.laws.push((0, 1, Times::Never));
    search(world, crashes(2, 3));
}

/// A publisher retains messages; afterwards a client subscribes.
fn retained(script: &[Command], times: Times) -> World {
    let publisher = Client::new(b'p', script);
    let late = [
        Command::After(0, script.len()),
        Command::Subscribe(TOPIC, 1),
    ];
    let late = Client::new(b'l', &late).clean();
    let mut world = World::new(vec![publisher, late]);
    world.laws.push((1, 1, times));
    world
}

/// 3.1.1 [MQTT-3.3.1-5], 5 [MQTT-3.3.1-5]: PUBACK and PUBREC wait for the record of the retained message.
#[test]
fn a_retained_message_that_was_acknowledged_is_kept() {
    search(retained(&[retain(1, 1)], Times::OnceOrMore), crashes(2, 3));
    search(retained(&[retain(1, 2)], Times::OnceOrMore), crashes(2, 3));
}

/// 3.1.1 [MQTT-3.3.1-10], 5 [MQTT-3.3.1-6]: the same for the removal of a retained message.
#[test]
fn a_retained_message_that_was_cleared_does_not_come_back() {
    let script = [retain(1, 1), retain(0, 1)];
    search(retained(&script, Times::Never), crashes(1, 3));
}
