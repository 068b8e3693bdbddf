//! Holds credentials that change, and the traits for enhanced authentication.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;

use crate::error::Error;

/// The credentials of one CONNECT. Each field replaces the field of [`crate::Options`] of the same name.
#[derive(Clone, Default)]
pub struct Credentials {
    /// User name.
    pub user_name: Option<String>,
    /// Password, or a token.
    pub password: Option<Vec<u8>>,
    /// User properties of CONNECT (5).
    pub user_properties: Vec<(String, String)>,
}

/// Shows whether there is a password, and never shows the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .finish_non_exhaustive()
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Credentials, Error>> + Send>>;

/// A function that returns new credentials before each attempt to connect. The adapter awaits it, not the agent.
#[derive(Clone)]
pub struct CredentialsSource(Arc<dyn Fn() -> Answer + Send + Sync>);

impl CredentialsSource {
    /// Makes a source that calls `ask` before each attempt. An error ends the attempt, and the next attempt calls `ask`
    /// again.
    ///
    /// ```
    /// use mqtt_agent::{Credentials, CredentialsSource, Error, Options};
    /// let mut options = Options::new("broker.example", 1883);
    /// options.credentials = Some(CredentialsSource::new(|| async {
    ///     let token = vec![1, 2, 3]; // from the service that gives out tokens
    ///     Ok::<_, Error>(Credentials { user_name: Some("pump-7".into()), password: Some(token), ..Credentials::default() })
    /// }));
    /// ```
    pub fn new<F, E>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn core::error::Error + Send + Sync>>,
    {
        Self(Arc::new(move || {
            let asked = ask();
            Box::pin(async move {
                asked
                    .await
                    .map_err(|error| Error::Credentials(Arc::from(error.into())))
            })
        }))
    }

    /// Asks for the credentials of the next attempt.
    #[must_use = "futures do nothing unless awaited"]
    pub fn ask(&self) -> Pin<Box<dyn Future<Output = Result<Credentials, Error>> + Send>> {
        (self.0)()
    }
}

impl fmt::Debug for CredentialsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsSource")
    }
}

/// One enhanced authentication, such as SCRAM (5, section 4.12). The agent makes a new one for each attempt to connect.
pub trait Authenticator: Send {
    /// Returns the name of the authentication method.
    fn method(&self) -> &str;

    /// Returns the authentication data of CONNECT, or `None` for a CONNECT without them.
    ///
    /// # Errors
    /// The reason why there are no data, as a sentence. It ends the attempt.
    fn begin(&mut self) -> Result<Option<Vec<u8>>, String>;

    /// Returns the data of the next AUTH as an answer to the data of an AUTH from the server.
    ///
    /// # Errors
    /// The error of the server's data, as a sentence. It ends the attempt.
    fn answer(&mut self, data: &[u8]) -> Result<Vec<u8>, String>;

    /// Checks the last data of the server, which come with CONNACK.
    ///
    /// # Errors
    /// The reason why the server is not authenticated, as a sentence. It ends the connection.
    fn finish(&mut self, data: &[u8]) -> Result<(), String>;
}

/// Makes a new [`Authenticator`] for each attempt to connect.
#[derive(Clone)]
pub struct MakeAuthenticator(Arc<dyn Fn() -> Box<dyn Authenticator> + Send + Sync>);

impl MakeAuthenticator {
    /// Makes an authenticator by calling `make` for each attempt.
    pub fn new<A: Authenticator + 'static>(make: impl Fn() -> A + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Box::new(make())))
    }

    pub(crate) fn make(&self) -> Box<dyn Authenticator> {
        (self.0)()
    }
}

impl fmt::Debug for MakeAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeAuthenticator")
    }
}
