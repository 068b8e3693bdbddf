//! Implements the broker side of SCRAM as hooks.

use std::collections::HashMap;

use mqtt_broker_host::broker::{ConnectionId, Hooks, Verdict};
use mqtt_tokio::proto::{Connect, ReasonCode};

use crate::scram::{Keys, METHOD, attribute, decode, encode, nonce, proves, sign};

const ITERATIONS: u32 = 4_096;
const SALT: &[u8] = b"another for each user";

/// Knows one user and the keys that check the user's password, but not the password.
pub(crate) struct ScramServer {
    user: String,
    keys: Keys,
    assigned: u128,
    /// The nonces and messages of clients that are authenticating.
    conversations: HashMap<ConnectionId, (String, String)>,
}

impl ScramServer {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            keys: Keys::new(password, SALT, ITERATIONS),
            assigned: 0,
            conversations: HashMap::new(),
        }
    }

    fn first(&mut self, connection: ConnectionId, message: &str) -> Option<Verdict> {
        let first = message.strip_prefix("n,,")?;
        let nonce = format!("{}{}", attribute(first, 'r')?, nonce());
        if attribute(first, 'n')? != self.user {
            return None;
        }
        let answer = format!("r={nonce},s={},i={ITERATIONS}", encode(SALT));
        let conversation = format!("{first},{answer}");
        self.conversations.insert(connection, (nonce, conversation));
        Some(Verdict::Continue(answer.into_bytes()))
    }

    fn last(&self, message: &str, (nonce, conversation): &(String, String)) -> Option<Verdict> {
        let (last, proof) = message.rsplit_once(",p=")?;
        // The proof covers the nonces of both sides, because the signed messages contain them.
        let conversation = format!("{conversation},{last}");
        let proof = decode(proof)?.try_into().ok()?;
        if attribute(last, 'r')? != nonce.as_str()
            || !proves(proof, &self.keys.stored, &conversation)
        {
            return None;
        }
        let signature = sign(&self.keys.server, conversation.as_bytes());
        Some(Verdict::AcceptWith(
            format!("v={}", encode(&signature)).into_bytes(),
        ))
    }
}

impl Hooks for ScramServer {
    fn unguessable(&mut self) -> u128 {
        self.assigned += 1; // a real broker takes it from the system's random numbers
        self.assigned
    }

    fn connect(&mut self, _: ConnectionId, _: &Connect<'_>) -> Verdict {
        Verdict::Refuse(ReasonCode::NotAuthorized)
    }

    fn authenticate(
        &mut self,
        connection: ConnectionId,
        method: &str,
        data: Option<&[u8]>,
    ) -> Verdict {
        let message = data.and_then(|data| std::str::from_utf8(data).ok());
        let verdict = match (method, message, self.conversations.remove(&connection)) {
            (METHOD, Some(message), None) => self.first(connection, message),
            (METHOD, Some(message), Some(conversation)) => self.last(message, &conversation),
            _ => return Verdict::Refuse(ReasonCode::BadAuthenticationMethod),
        };
        verdict.unwrap_or(Verdict::Refuse(ReasonCode::NotAuthorized))
    }
}
