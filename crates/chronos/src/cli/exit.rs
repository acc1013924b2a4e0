//! How the tool fails: exit codes and the text or object on standard error.
//!
//! The codes are a table of `docs/chronos.md`; `tests/it/exit_codes.rs` shows each of them.

use std::process::ExitCode;

use serde_json::json;

use crate::os::Fault;
use crate::os::session::chain;
use crate::quantity::QuantityError;
use crate::refusal::Refusal;

/// Why a command has no result.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    code: String,
    message: String,
    hint: Option<String>,
    exit: u8,
    detail: serde_json::Value,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code().to_owned(),
            message: refusal.to_string(),
            hint: refusal.hint(),
            exit: refusal.exit_code(),
            detail: serde_json::to_value(&refusal).unwrap_or_default(),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let setting = matches!(fault, Fault::Setting { .. });
        Self {
            code: if setting { "setting" } else { "fault" }.to_owned(),
            message: chain(&fault),
            hint: fault.hint().map(str::to_owned),
            exit: if setting { 78 } else { 74 },
            detail: serde_json::Value::Null,
        }
    }
}

impl Failure {
    /// A machine that failed elsewhere, in the helper for example.
    pub fn failed(message: String, hint: Option<String>) -> Self {
        Self { code: "fault".into(), message, hint, exit: 74, detail: serde_json::Value::Null }
    }

    /// A quantity that means nothing.
    pub fn from_quantity(error: QuantityError) -> Self {
        Refusal::from(error).into()
    }

    /// Arguments that mean nothing.
    pub fn usage(message: String, hint: &str) -> Self {
        Refusal::BadInput { message, hint: hint.to_owned() }.into()
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with_exit(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// Writes it to standard error.
    pub fn report(&self, as_json: bool) -> ExitCode {
        if as_json {
            let object = json!({
                "apiVersion": super::views::API_VERSION,
                "kind": "Error",
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "detail": self.detail,
            });
            eprintln!("{object}");
        } else {
            eprintln!("{} {}", super::print::mark(super::print::Mark::Error), self.message);
            if let Some(hint) = &self.hint {
                eprintln!("hint: {hint}");
            }
        }
        ExitCode::from(self.exit)
    }
}
