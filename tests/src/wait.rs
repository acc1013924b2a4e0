//! Waiting for a state of the outside world by looking at it again and again until a deadline.

use std::thread;
use std::time::{Duration, Instant};

use crate::error_chain;

/// Time between two looks: short beside the 50 ms that one `kubectl` takes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Calls `look` until it returns something, an error, or `limit` has passed.
///
/// `Ok(None)` means that the limit passed; `look` was called at least once after it, so that a slow
/// machine is never the reason for a wrong "no".
///
/// # Errors
/// The first error of `look`, at once: an error is a state that waiting cannot mend.
pub fn poll<T, E>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let began = Instant::now();
    loop {
        let last = began.elapsed() >= limit;
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if last {
            return Ok(None);
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// As [`poll`] for a test: what is waited for is named by `what`, and must come.
///
/// # Panics
/// When `limit` passes first, or `look` fails.
pub fn until<T, E: Into<Box<dyn std::error::Error>>>(
    what: &str,
    limit: Duration,
    look: impl FnMut() -> Result<Option<T>, E>,
) -> T {
    match poll(limit, look) {
        Ok(Some(found)) => found,
        Ok(None) => panic!("{what}: not seen within {} s", limit.as_secs()),
        Err(error) => panic!("{what}: {}", error_chain(&*error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_passed_limit_still_looks_once() {
        let mut looks = 0;
        let found = poll(Duration::ZERO, || {
            looks += 1;
            Ok::<_, Infallible>((looks == 1).then_some(looks))
        });
        assert_eq!(found, Ok(Some(1)));
        assert_eq!(poll(Duration::ZERO, || Ok::<Option<()>, Infallible>(None)), Ok(None));
    }

    #[test]
    fn an_error_ends_the_wait() {
        let mut looks = 0;
        let result = poll(Duration::from_secs(3600), || {
            looks += 1;
            if looks < 3 { Ok(None::<()>) } else { Err("broken") }
        });
        assert_eq!((result, looks), (Err("broken"), 3));
    }
}
