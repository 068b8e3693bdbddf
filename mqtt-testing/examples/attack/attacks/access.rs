//! Implements attacks with wrong passwords.

use std::collections::VecDeque;
use std::time::Duration;

use mqtt_proto::Connect;

use super::Target;
use crate::broker::USERS;
use crate::client::{Client, connect};

/// Logs in with a password that is wrong and different each time, and does not wait for the answer.
fn wrong(target: &Target, number: usize) -> Option<Client> {
    let user = format!("user-{}", number % USERS);
    let password = format!("wrong-{number}");
    let connect = Connect {
        user_name: Some(&user),
        password: Some(password.as_bytes()),
        ..connect("")
    };
    Client::begin(target.address, &connect, Duration::from_secs(1))
}

/// Each connection ends with a line of the log.
pub(super) fn refused(target: &Target) -> Option<()> {
    while target.goes_on() {
        let mut client = target.attacker()?;
        client.pour(&[0xF0, 0], &target.over);
        client.drain(&target.over);
    }
    Some(())
}

pub(super) fn burst(target: &Target) -> Option<()> {
    let _clients: Vec<_> = (0..600).filter_map(|n| wrong(target, n)).collect();
    target.holds();
    Some(())
}

pub(super) fn stream(target: &Target) -> Option<()> {
    let mut clients = VecDeque::new();
    let began = std::time::Instant::now();
    for number in 0..30_000_u32 {
        clients.push_back(wrong(target, number as usize));
        if clients.len() > 500 {
            clients.pop_front();
        }
        let next = began + Duration::from_millis(1) * number;
        if !target.waits(next.saturating_duration_since(std::time::Instant::now())) {
            return Some(());
        }
    }
    Some(())
}
