//! Waiting for something to become true.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine with two cores.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is `Ok`, and returns what it holds.
///
/// # Panics
/// With the last `Err`, when [`DEADLINE`] has passed.
pub async fn until<T, E: Debug, F: Future<Output = Result<T, E>>>(mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(last) => {
                assert!(start.elapsed() < DEADLINE, "still not so after {DEADLINE:?}: {last:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
