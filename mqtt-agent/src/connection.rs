//! Dials, writes CONNECT, handles the end of a connection, and closes the agent.

use alloc::borrow::ToOwned;
use alloc::format;
use core::time::Duration;

use mqtt_proto::{Auth, ConnAck, Connect, Disconnect, Properties, Property, ReasonCode, Version};
use mqtt_session::{Closed, Instant, NextDial, Violation};

use crate::agent::{Agent, Stage};
use crate::authentication::Credentials;
use crate::error::Error;
use crate::event::{ConnectionEvent, ConnectionInfo, OwnedConnAck};

/// How long the transport may take to write the last bytes after the time limit of closing.
const HANG_UP: Duration = Duration::from_secs(1);

/// A time that is never reached.
const NEVER: Instant = Instant::from_millis(u64::MAX);

impl Agent {
    /// Returns when the caller is to open a transport. [`NextDial::Now`] begins an attempt, which ends with [`Self::opened`] or
    /// [`Self::lost`]. After [`NextDial::Never`] there are no further events.
    pub fn next_dial(&mut self, now: Instant) -> NextDial {
        if self.is_stopped() {
            return NextDial::Never;
        }
        // If a connection is up, `tick` ends it.
        if self.stage != Stage::Up && self.is_done(now) {
            self.stop(Error::Stopped);
            return NextDial::Never;
        }
        if self.stage == Stage::Up {
            let later = now.after(Duration::from_millis(1));
            return NextDial::At(self.deadline().unwrap_or(NEVER).max(later));
        }
        match self.supervisor.next_dial(now) {
            NextDial::Now => {
                if self.stage == Stage::Down {
                    self.stage = Stage::Dialling;
                    self.queue_connection_event(ConnectionEvent::Connecting);
                }
                NextDial::Now
            }
            NextDial::At(until) => NextDial::At(self.closing.map_or(until, |by| by.min(until))),
            NextDial::Never => {
                self.stop(Error::Stopped);
                NextDial::Never
            }
        }
    }

    /// Sets the user name, password and user properties of the next CONNECT.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        let Credentials {
            user_name,
            password,
            user_properties,
        } = credentials;
        self.options.user_name = user_name;
        self.options.password = password;
        self.options.user_properties = user_properties;
    }

    /// Starts a connection on an open transport: afterwards CONNECT is outgoing.
    ///
    /// # Errors
    /// The options do not make a valid CONNECT, or the agent is stopped: close the transport and call [`Self::lost`].
    pub fn opened(&mut self, now: Instant) -> Result<(), Error> {
        if self.is_stopped() {
            return Err(Error::Stopped);
        }
        if self.stage == Stage::Up {
            self.end_connection_state(now);
        }
        self.authenticator = match &self.options.authenticator {
            Some(make) if self.options.version.is_v5() => Some(make.make()),
            _ => None,
        };
        let data = match &mut self.authenticator {
            Some(authenticator) => authenticator.begin().map_err(Error::Authentication)?,
            None => None,
        };
        let method = self.authenticator.as_ref().map(|known| known.method());
        // In 3.1.1 a session with a clean start ends with its connection.
        let goes_on = self.was_connected && self.options.version.is_v5();
        let clean_start = self.client.must_start_clean()
            || (self.options.clean_start && !goes_on)
            || self.begins_clean();
        // Such a connection only ends the session of the server, and is closed without DISCONNECT.
        let has_will = !clean_start || self.options.clean_start || self.options.version.is_v5();
        let client = &mut self.client;
        self.options.with_connect(
            clean_start,
            &self.client_id,
            method.map(|method| (method, data.as_deref())),
            |connect| {
                let will = connect.will.filter(|_| has_will);
                client.connect(&Connect { will, ..*connect }, now)
            },
        )??;
        #[cfg(feature = "journal")]
        {
            // From now on the session knows it.
            self.journal.begins_clean = false;
        }
        self.stage = Stage::Up;
        self.connection = self.connection.wrapping_add(1);
        (self.told_unclaimed, self.told_exceeded) = (false, false);
        // A clean start ends the messages that were in flight.
        self.report_ended(now);
        Ok(())
    }

    /// Returns whether the next CONNECT asks for a clean start because the server may have a session whose records are lost.
    #[allow(clippy::unused_self, reason = "with the feature it is needed")]
    const fn begins_clean(&self) -> bool {
        #[cfg(feature = "journal")]
        return self.journal.begins_clean;
        #[cfg(not(feature = "journal"))]
        false
    }

    /// Returns whether there is no room for more records.
    #[allow(clippy::unused_self, reason = "with the feature it is needed")]
    pub(crate) const fn store_is_full(&self) -> bool {
        #[cfg(feature = "journal")]
        return self.journal.is_full;
        #[cfg(not(feature = "journal"))]
        false
    }

    /// Ends the connection, or the attempt to open one. `random` is any number; it spreads the attempts of many clients over
    /// time.
    pub fn lost(&mut self, why: Error, now: Instant, random: u32) {
        if self.is_stopped() {
            return;
        }
        // After DISCONNECT the end of the stream is not an error.
        let why = match why {
            Error::EndOfStream if self.hang_up.is_some() => Error::Stopped,
            why => why,
        };
        self.end_connection_state(now);
        if self.ends_unknown_session(&why) && !self.is_done(now) {
            return;
        }
        self.supervisor.lost(now, random);
        let stop = (self.options.stop_on.authentication_failure && why.is_authentication_failure())
            || (self.options.stop_on.session_taken_over && why.is_session_taken_over());
        self.queue_connection_event(ConnectionEvent::Lost(why.clone()));
        if stop || self.is_done(now) {
            self.stop(if stop { why } else { Error::Stopped });
            return;
        }
        match self.supervisor.next_dial(now) {
            NextDial::Never => self.stop(why),
            NextDial::At(until) => {
                self.queue_connection_event(ConnectionEvent::WaitingUntil(until))
            }
            NextDial::Now => {}
        }
    }

    /// Returns whether the connection is one of the two with which a client of 3.1.1 ends a session that only the server has. The
    /// next one follows at once, and the program is not told. The section 3.2.2.2 of 3.1.1 describes it: the first one finds the
    /// session, and the second one is clean.
    fn ends_unknown_session(&self, why: &Error) -> bool {
        let unknown = Closed::Violation(Violation::SessionPresentWithoutState);
        !self.options.version.is_v5() && matches!(why, Error::Closed(closed) if *closed == unknown)
    }

    /// Ends all state that belongs to the connection.
    fn end_connection_state(&mut self, now: Instant) {
        let was_connected = self.client.is_connected();
        self.progress.lost(self.client.unsent());
        self.report_sent();
        self.client.disconnected();
        self.stage = Stage::Down;
        self.hang_up = None;
        self.authenticator = None;
        self.report_ended(now);
        self.ask_again();
        self.messages_may_return(was_connected);
    }

    pub(crate) fn on_connected(
        &mut self,
        connack: &ConnAck<'_>,
        packet: &[u8],
        resumed: bool,
        now: Instant,
    ) -> Result<(), Error> {
        if let Some(mut authenticator) = self.authenticator.take() {
            let data = connack.properties.authentication_data();
            authenticator
                .finish(data.unwrap_or_default())
                .map_err(Error::Authentication)?;
        }
        if let Some(assigned) = connack.properties.assigned_client_identifier() {
            assigned.clone_into(&mut self.client_id);
        }
        self.response_information = connack
            .properties
            .response_information()
            .map(ToOwned::to_owned);
        self.supervisor.connected(now);
        self.was_connected = true;
        if !resumed {
            self.subscriptions_lost(now);
            self.messages_will_not_return();
        } else if self.options.version == Version::V31 {
            // CONNACK of MQTT 3.1 does not say whether the server has the subscriptions.
            self.subscriptions_lost(now);
        }
        self.queue_connection_event(ConnectionEvent::Connected(ConnectionInfo {
            session_present: resumed,
            client_id: self.client_id.clone(),
            connack: OwnedConnAck::new(packet, self.options.version),
        }));
        Ok(())
    }

    pub(crate) fn on_refused(&mut self, connack: &ConnAck<'_>, packet: &[u8]) -> Error {
        let connack_owned = OwnedConnAck::new(packet, self.options.version);
        self.queue_connection_event(ConnectionEvent::Refused(connack_owned));
        Closed::Refused(connack.reason).into()
    }

    /// Handles AUTH.
    pub(crate) fn on_auth(&mut self, auth: &Auth<'_>, now: Instant) -> Result<(), Error> {
        let data = auth.properties.authentication_data().unwrap_or_default();
        if auth.reason == ReasonCode::Success {
            return Ok(());
        }
        let Some(authenticator) = &mut self.authenticator else {
            return Err(Error::Authentication(
                "the server continues an authentication that has ended".to_owned(),
            ));
        };
        let answer = authenticator.answer(data).map_err(Error::Authentication)?;
        let properties = [
            Property::AuthenticationMethod(authenticator.method()),
            Property::AuthenticationData(&answer),
        ];
        let answer = Auth {
            // 5 [MQTT-4.12.0-3]
            reason: ReasonCode::ContinueAuthentication,
            properties: Properties::from(&properties[..]),
        };
        self.client
            .authenticate(&answer, now)
            .map_err(|refused| Error::Authentication(format!("{refused}")))
    }

    /// Begins to close: the agent sends pending messages until `by`, then DISCONNECT. It accepts no new messages.
    pub fn close(&mut self, by: Instant, now: Instant) {
        self.closing = Some(self.closing.map_or(by, |known| known.min(by)));
        let hang_up = by.max(now).after(HANG_UP);
        self.hang_up = self.hang_up.map(|known| known.min(hang_up));
        if self.stage != Stage::Up && self.is_done(now) {
            self.stop(Error::Stopped);
        }
    }

    /// Returns how many attempts in a row failed, or ended right after CONNACK.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.supervisor.failures()
    }

    /// Returns whether a transport is open.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Returns whether [`Self::close`] was called.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns whether the agent is stopped: it does not dial, and there are no further events.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self.stage, Stage::Stopped)
    }

    /// Returns whether CONNACK accepted the connection and nothing has ended it since.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Returns whether the caller is to close the transport, because the last packet, DISCONNECT, is written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_stopped() || (self.client.is_closing() && self.client.unsent() == 0)
    }

    /// Returns whether the agent may stop now because nothing is pending.
    pub(crate) fn is_done(&self, now: Instant) -> bool {
        self.closing
            .is_some_and(|by| self.client.pending() == 0 || now >= by)
    }

    /// Writes DISCONNECT on a connection that is up, if nothing is pending or the time limit is over.
    pub(crate) fn continue_closing(&mut self, now: Instant) -> Result<(), Error> {
        if !self.is_done(now) {
            return Ok(());
        }
        if self.hang_up.is_some_and(|by| now >= by) {
            return Err(Error::Stopped);
        }
        if self.hang_up.is_none() {
            if !self.client.is_connected() {
                return Err(Error::Stopped);
            }
            let by = self.closing.unwrap_or(now).max(now);
            self.hang_up = Some(by.after(HANG_UP));
            // If the buffer has no room for DISCONNECT, the transport is stuck.
            self.client
                .disconnect(&Disconnect::default())
                .map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    /// Stops the agent at once, because its caller will not drive it any more. All waiting messages and requests end.
    pub fn abandon(&mut self, why: Error, now: Instant) {
        if !self.is_stopped() {
            self.end_connection_state(now);
            self.stop(why);
        }
    }

    /// Stops the agent, and ends all waiting messages and requests with this reason.
    pub(crate) fn stop(&mut self, why: Error) {
        if self.is_stopped() {
            return;
        }
        self.stage = Stage::Stopped;
        self.authenticator = None;
        self.end_responses(&Error::Stopped);
        self.queue_connection_event(ConnectionEvent::Stopped(why));
    }
}
