//! Stores the wakers of futures that wait for the same event. A future that is dropped takes its waker with it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::hub::{Hub, HubState};

/// The place of a future among the [`Waiters`].
#[derive(Debug)]
pub(crate) struct Place(u64);

impl Place {
    /// The place of a future that does not wait.
    pub(crate) const NONE: Self = Self(0);

    /// Whether the future has waited, so that its waker may be among the [`Waiters`].
    pub(crate) const fn has_waited(&self) -> bool {
        self.0 != Self::NONE.0
    }
}

/// The places of a future that waits for room: among the publishers, and among those that wait for the store.
#[derive(Debug)]
pub(crate) struct RoomPlace {
    pub(crate) room: Place,
    #[cfg(feature = "store")]
    pub(crate) storage: Place,
}

impl RoomPlace {
    /// The places of a future that does not wait.
    pub(crate) const NONE: Self = Self {
        room: Place::NONE,
        #[cfg(feature = "store")]
        storage: Place::NONE,
    };

    /// Removes the wakers of a future that is dropped.
    pub(crate) fn leave(&self, hub: &Hub) {
        if self.room.has_waited() {
            let left = hub.lock().leave_room(self);
            drop(left);
        }
    }
}

/// The wakers of the futures that wait, each in a place of its own: two futures of one task have the same waker, and one of them
/// may be dropped while the other one waits.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// The number of the newest place. Numbers are not used again, so an old place never has the waker of another future.
    last: u64,
    /// In the order of the numbers of their places. The memory stays, so that a future that waits again needs none.
    wakers: Vec<(u64, Waker)>,
}

impl Waiters {
    /// Stores the waker of a future, in place of the one that it had.
    pub(crate) fn wait(&mut self, place: &mut Place, waker: &Waker) {
        let at = self.position(place);
        if let Some((_, known)) = at.and_then(|at| self.wakers.get_mut(at)) {
            known.clone_from(waker);
        } else {
            self.last += 1;
            *place = Place(self.last);
            self.wakers.push((self.last, waker.clone()));
        }
    }

    /// Removes all. The caller wakes them without a lock, because a waker may run code that takes the lock.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> {
        self.wakers.drain(..).map(|(_, waker)| waker)
    }

    /// Removes the waker of a future that is dropped. The caller drops it without a lock, because that may drop a task.
    pub(crate) fn leave(&mut self, place: &Place) -> Option<Waker> {
        self.position(place).map(|at| self.wakers.remove(at).1)
    }

    fn position(&self, place: &Place) -> Option<usize> {
        self.wakers
            .binary_search_by_key(&place.0, |(number, _)| *number)
            .ok()
    }
}

/// Waits for a change of the connection.
#[derive(Debug)]
pub(crate) struct Watch {
    hub: Arc<Hub>,
    place: Place,
}

impl Watch {
    pub(crate) fn new(hub: &Arc<Hub>) -> Self {
        Self {
            hub: Arc::clone(hub),
            place: Place::NONE,
        }
    }

    /// Looks at the state, and waits for its next change if `look` returns nothing.
    pub(crate) fn poll<R>(
        &mut self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut HubState) -> Option<R>,
    ) -> Poll<R> {
        let mut state = self.hub.lock();
        match look(&mut state) {
            Some(found) => Poll::Ready(found),
            None => {
                state.watchers.wait(&mut self.place, cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let left = self.hub.lock().watchers.leave(&self.place);
        drop(left);
    }
}
