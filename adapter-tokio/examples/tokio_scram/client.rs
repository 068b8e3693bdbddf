//! Implements the client side of SCRAM.

use mqtt_tokio::Authenticator;

use crate::scram::{Keys, METHOD, attribute, decode, encode, nonce, sign};

/// One authentication.
pub(crate) struct ScramClient {
    password: String,
    nonce: String,
    /// The first message without its header.
    first: String,
    /// The signature that the server has to send.
    expected: Option<String>,
}

/// With fewer iterations a fake server could find the password by trying. RFC 7677 demands at least this many.
const LEAST_ITERATIONS: u32 = 4_096;
/// With more iterations a fake server could keep the client busy.
const MOST_ITERATIONS: u32 = 1_000_000;

impl ScramClient {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self::with_nonce(user, password, nonce())
    }

    fn with_nonce(user: &str, password: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            password: password.to_owned(),
            first: format!("n={user},r={nonce}"),
            nonce,
            expected: None,
        }
    }
}

impl Authenticator for ScramClient {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(&mut self) -> Result<Option<Vec<u8>>, String> {
        Ok(Some(format!("n,,{}", self.first).into_bytes()))
    }

    fn answer(&mut self, data: &[u8]) -> Result<Vec<u8>, String> {
        let server = std::str::from_utf8(data).map_err(|_| "the server's message is not text")?;
        let part = |name| attribute(server, name).ok_or_else(|| format!("{name}= is missing"));
        let (nonce, salt) = (
            part('r')?,
            decode(part('s')?).ok_or("the salt is not base64")?,
        );
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not continue ours".to_owned());
        }
        let iterations = part('i')?.parse().map_err(|_| "i= is not a number")?;
        if !(LEAST_ITERATIONS..=MOST_ITERATIONS).contains(&iterations) {
            return Err(format!("{iterations} iterations"));
        }
        let keys = Keys::new(&self.password, &salt, iterations);
        let last = format!("c=biws,r={nonce}");
        let conversation = format!("{},{server},{last}", self.first);
        self.expected = Some(encode(&sign(&keys.server, conversation.as_bytes())));
        Ok(format!("{last},p={}", encode(&keys.proof(&conversation))).into_bytes())
    }

    fn finish(&mut self, data: &[u8]) -> Result<(), String> {
        let proof = std::str::from_utf8(data).ok();
        let proof = proof.and_then(|message| attribute(message, 'v'));
        if proof.is_some() && proof == self.expected.as_deref() {
            Ok(())
        } else {
            Err("the server did not prove that it knows the password".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the example of RFC 7677, section 3.
    #[test]
    fn the_conversation_of_the_standard() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let mut client = ScramClient::with_nonce("user", "pencil", nonce.to_owned());
        assert_eq!(
            client.begin(),
            Ok(Some(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO".to_vec()))
        );
        let answer = client.answer(
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        );
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(answer, Ok(expected.as_bytes().to_vec()));
        assert_eq!(
            client.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Ok(())
        );
        assert!(client.finish(b"v=AAAA").is_err());
        assert!(client.finish(b"").is_err());
    }
}
