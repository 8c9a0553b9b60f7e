//! Looks again and again until something is so. What does not come in time is an error that says what was
//! waited for.

use std::time::{Duration, Instant};

use crate::error::CliError;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks until there is something to see.
///
/// # Errors
/// `not_in_time`, and what a look fails with.
pub(super) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, CliError>,
) -> Result<T, CliError> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if started.elapsed() >= within {
            let cause = format!("not within {} seconds: {what}", within.as_secs());
            let fix = "see 'seamark status' and the logs of the nodes (--log info); the machine may be too busy";
            return Err(CliError::new("not_in_time", cause, fix));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_come_in_time_is_named() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(60), async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.await, Ok(3));
        let never = until("the moon falls", Duration::ZERO, async || Ok(None::<()>)).await.unwrap_err();
        assert_eq!(never.code, "not_in_time");
        assert!(never.cause.contains("the moon falls"), "{never}");
        let failed = || CliError::new("x", "cause", "fix");
        let error = until("it", Duration::from_secs(60), async || Err::<Option<()>, _>(failed())).await.unwrap_err();
        assert_eq!(error.code, "x");
    }
}
