//! Polling until a condition holds.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

/// Longer than any step of a test takes on a busy machine with two cores.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `ask` repeatedly until it returns `Ok`, and returns the value.
///
/// # Panics
/// After [`DEADLINE`], with the last `Err`.
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
