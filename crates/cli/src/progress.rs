//! What a person sees while something takes long.

use std::io::{self, IsTerminal, Write};

/// A line on standard error that goes away again; only where a person looks at it.
pub struct Step {
    shown: bool,
}

impl Step {
    /// Says what is being done.
    pub fn begin(what: &str) -> Self {
        let shown = io::stderr().is_terminal();
        if shown {
            let _ = write!(io::stderr(), "\r\x1b[K{what} …");
        }
        Self { shown }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
