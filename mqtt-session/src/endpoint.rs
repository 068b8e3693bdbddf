//! The methods that [`crate::Client`] and [`crate::Server`] have in common. Both have the fields `engine`, `memory` and `now`.

/// Implements the common methods for one of the two types.
macro_rules! endpoint {
    ($name:ident) => {
        /// Prints the phase but no contents, which may be secret.
        impl core::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("phase", &self.engine.link.phase)
                    .field("pending", &self.pending())
                    .finish_non_exhaustive()
            }
        }

        impl $name<'_> {
            /// Stores the time and returns it as the engine counts it.
            #[inline]
            fn at(&mut self, now: Instant) -> u32 {
                self.now = now;
                now.wrapped()
            }

            /// Returns bytes that wait for the transport: those that lie together in memory, so after [`Self::sent`] there may be
            /// more. The call has no effect of its own.
            #[must_use]
            #[inline]
            pub fn outgoing(&self) -> &[u8] {
                self.engine.outgoing(&self.memory)
            }

            /// Takes note that the transport has taken the first `n` bytes of [`Self::outgoing`]. A larger `n` counts as all of them.
            #[inline]
            pub fn sent(&mut self, n: usize) {
                self.engine.sent(&mut self.memory, n);
            }

            /// Returns when [`Self::tick`] has to be called at the latest. Every other call can change this time.
            #[must_use]
            pub fn deadline(&self) -> Option<Instant> {
                let due = self.engine.due_in(self.now.wrapped())?;
                Some(self.now.plus(u64::from(due)))
            }

            /// Returns the topic of an incoming message: its own, or the one that its topic alias stands for (MQTT 5).
            #[must_use]
            pub fn topic<'a>(&'a self, publish: &Publish<'a>) -> TopicName<'a> {
                if publish.topic.is_none() {
                    self.engine.topic(&self.memory, publish).unwrap_or_default()
                } else {
                    publish.topic
                }
            }

            /// Returns how many bytes wait for the transport in all. [`Self::outgoing`] returns the first of them, or none while they
            /// wait for a record to be stored.
            #[must_use]
            pub fn unsent(&self) -> usize {
                self.engine.unsent(&self.memory)
            }

            /// Returns how many messages and requests were accepted and have not ended.
            #[must_use]
            pub fn pending(&self) -> usize {
                self.engine.pending()
            }

            /// Returns whether [`Self::receive`] may have the end of a message or request to report without input. [`Self::sent`] ends a
            /// large message at QoS 0, for which the peer sends nothing. After the last end was reported, the next call of `receive` frees
            /// it, and this returns `false`.
            #[must_use]
            pub const fn has_ended(&self) -> bool {
                self.engine.has_ended()
            }

            /// Returns whether CONNACK has accepted the connection and nothing has ended it since.
            #[must_use]
            pub const fn is_connected(&self) -> bool {
                self.engine.is_connected()
            }

            /// Returns whether the connection is over. If so, write what is outgoing, then close the transport.
            #[must_use]
            pub const fn is_closing(&self) -> bool {
                matches!(self.engine.link.phase, Phase::Closing)
            }
        }
    };
}

pub(crate) use endpoint;
