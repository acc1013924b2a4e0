//! What Windows has in place of what Unixes share.

pub mod detach;
pub mod key;
pub mod places;
pub mod users;
