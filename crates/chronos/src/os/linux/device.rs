//! Device nodes.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::lease::DeviceNode;

/// The device that a path leads to; `None` when it leads to none.
pub fn node(path: &Path) -> Option<DeviceNode> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.file_type().is_char_device() {
        return None;
    }
    let number = metadata.rdev();
    Some(DeviceNode { major: rustix::fs::major(number), minor: rustix::fs::minor(number) })
}
