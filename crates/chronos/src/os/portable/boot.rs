//! The clock that deadlines are kept on, and the boot it belongs to.

use super::kernel;
use crate::os::fault::Fault;
pub use kernel::boottime;

/// The id of this boot.
///
/// # Errors
/// [`Fault::Os`] when the kernel does not tell.
pub fn boot_id() -> Result<String, Fault> {
    kernel::boot_id().map_err(|e| Fault::os("read", "the id of this boot", e))
}
