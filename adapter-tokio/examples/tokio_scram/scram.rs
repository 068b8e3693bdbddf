//! Computes the values of both sides of SCRAM-SHA-256 (RFC 5802, section 3; RFC 7677).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// The authentication method of CONNECT.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";

pub(crate) type Key = [u8; 32];

/// The keys of a password.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    client: Key,
    /// The stored key, with which a server checks proofs.
    pub(crate) stored: Key,
    /// The server key, with which a server proves that it knows the password.
    pub(crate) server: Key,
}

impl Keys {
    pub(crate) fn new(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, iterations);
        let client = sign(&salted, b"Client Key");
        Self {
            client,
            stored: Sha256::digest(client).into(),
            server: sign(&salted, b"Server Key"),
        }
    }

    /// Returns the proof that the client sends: its key, combined with a signature that only the owner of the stored key can
    /// compute.
    pub(crate) fn proof(&self, conversation: &str) -> Key {
        xor(self.client, sign(&self.stored, conversation.as_bytes()))
    }
}

/// Returns whether a proof was made with the key whose hash is `stored`.
pub(crate) fn proves(proof: Key, stored: &Key, conversation: &str) -> bool {
    let client = xor(proof, sign(stored, conversation.as_bytes()));
    Key::from(Sha256::digest(client)) == *stored
}

pub(crate) fn sign(key: &Key, text: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key length will do");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn xor(mut a: Key, b: Key) -> Key {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Returns 18 random bytes of the system as text without a comma.
pub(crate) fn nonce() -> String {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    encode(&bytes)
}

/// Returns the value of an attribute in a message such as `r=..,s=..,i=4096`.
pub(crate) fn attribute(message: &str, name: char) -> Option<&str> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}
