//! Who the client says it is: credentials that change, and enhanced authentication.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;

use crate::error::Error;

/// What a CONNECT says about who connects. Each field takes the place of the field of [`crate::Options`] of the same name.
#[derive(Clone, Default)]
pub struct Credentials {
    /// User name.
    pub user_name: Option<String>,
    /// Password, or a token.
    pub password: Option<Vec<u8>>,
    /// User properties of CONNECT (5).
    pub user_properties: Vec<(String, String)>,
}

/// Tells whether there is a password, never which.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .finish_non_exhaustive()
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Credentials, Error>> + Send>>;

/// Where new credentials come from, asked before each attempt to connect. The adapter awaits it; the agent never does.
#[derive(Clone)]
pub struct CredentialsSource(Arc<dyn Fn() -> Answer + Send + Sync>);

impl CredentialsSource {
    /// A source that calls `ask` before each attempt. An error ends the attempt, and the next one asks again.
    ///
    /// ```
    /// use mqtt_agent::{Credentials, CredentialsSource, Error, Options};
    /// let mut options = Options::new("broker.example", 1883);
    /// options.credentials = Some(CredentialsSource::new(|| async {
    ///     let token = vec![1, 2, 3]; // ask who gives out tokens
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

    /// Asks.
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

/// One enhanced authentication (5, section 4.12), such as SCRAM: what to say first, and what to answer. It is made anew for
/// each attempt to connect.
pub trait Authenticator: Send {
    /// The authentication method, as the server knows it.
    fn method(&self) -> &str;

    /// The authentication data of CONNECT; `None` for none.
    ///
    /// # Errors
    /// A sentence that says why there is none; the attempt ends.
    fn begin(&mut self) -> Result<Option<Vec<u8>>, String>;

    /// Answers the data of an AUTH of the server with the data of the next AUTH.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it; the attempt ends.
    fn answer(&mut self, data: &[u8]) -> Result<Vec<u8>, String>;

    /// Judges the last data of the server, which comes with CONNACK.
    ///
    /// # Errors
    /// A sentence that says why the server is not who it should be; the connection ends.
    fn finish(&mut self, data: &[u8]) -> Result<(), String>;
}

/// Makes an [`Authenticator`] for each attempt.
#[derive(Clone)]
pub struct MakeAuthenticator(Arc<dyn Fn() -> Box<dyn Authenticator> + Send + Sync>);

impl MakeAuthenticator {
    /// Calls `make` for each attempt.
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
