//! Decides whether an address to which other machines can connect is protected, at the start and when the settings are read again.

use std::net::SocketAddr;

use crate::reload::Access;
use crate::{Error, ListenerSettings};

/// An address to which other machines can connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicAddress {
    /// The number of its listener.
    pub(crate) number: usize,
    address: SocketAddr,
    /// Whether each client needs TLS there, so that a certificate can be required.
    is_secured: bool,
}

impl PublicAddress {
    pub(crate) const fn new(number: usize, address: SocketAddr, is_secured: bool) -> Self {
        Self {
            number,
            address,
            is_secured,
        }
    }
}

impl Access {
    /// Checks that an address to which others can connect is protected, or explicitly open. `settings` are those of its listener.
    pub(crate) fn protects(
        &self,
        public: &PublicAddress,
        settings: &ListenerSettings,
    ) -> Result<(), Error> {
        let needs_certificate = public.is_secured && settings.requires_certificate();
        if needs_certificate || self.decides_at(public.number) {
            return Ok(());
        }
        Err(Error::Unprotected(public.address))
    }
}

impl ListenerSettings {
    pub(crate) fn requires_certificate(&self) -> bool {
        self.client_ca.is_some() && self.client_certificate.as_deref() != Some("optional")
    }
}
