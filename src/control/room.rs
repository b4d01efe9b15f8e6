//! Room for so many connections at once, which is more than honest clients need and less than what would harm.
//!
//! A client that finds none is refused at once: nobody waits, and what is refused holds nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::Instant;

/// Connections at once, on each socket. keepalived has one for each of its processes.
pub(super) const CONNECTIONS: usize = 256;

/// Connections at once of those who may not use the gateway, while they are told so. They take nobody's place.
pub(super) const STRANGERS: usize = 16;

/// How often tasks are let go on before there is no room: each learns of the end of its connection, and ends.
const TURNS: usize = 3;
/// The log says once in so long that there was none.
const QUIET: Duration = Duration::from_secs(60);

/// The room on one socket.
pub(super) struct Room {
    /// Whose connections, in the log's words.
    whose: &'static str,
    places: usize,
    permits: Arc<Semaphore>,
    told: Option<Instant>,
}

impl Room {
    /// Room for so many.
    pub(super) fn new(whose: &'static str, places: usize) -> Self {
        Self { whose, places, permits: Arc::new(Semaphore::new(places)), told: None }
    }

    /// A place for one more connection, held until it is dropped; none where there is none.
    ///
    /// Connections that were closed while they waited to be accepted may still have their places; those are given up first,
    /// so that who opens and closes connections as fast as he can keeps nobody out.
    pub(super) async fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        for _ in 0..TURNS {
            if let Ok(place) = self.permits.clone().try_acquire_owned() {
                return Some(place);
            }
            yield_now().await;
        }
        let place = self.permits.clone().try_acquire_owned().ok();
        if place.is_none() && self.told.is_none_or(|told| told.elapsed() > QUIET) {
            self.told = Some(Instant::now());
            tracing::warn!("{} connections of {} are open: no more are taken", self.places, self.whose);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_bounded_and_given_again() {
        let mut room = Room::new("tests", CONNECTIONS);
        let mut places = Vec::new();
        for _ in 0..CONNECTIONS {
            places.push(room.take().await.unwrap());
        }
        assert!(room.take().await.is_none());
        places.pop();
        places.push(room.take().await.unwrap());
        // A task that is about to end gives its place up.
        let place = places.pop();
        tokio::spawn(async move { drop(place) });
        assert!(room.take().await.is_some());
    }
}
