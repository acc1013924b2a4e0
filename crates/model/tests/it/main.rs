//! What holds of the workspace as a whole.

mod labels;
mod tidy;
