//! Pages of a list and lines of a watch.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::{ApiError, Status};

/// One page; its items are read one by one, so that a malformed one costs no other.
#[derive(Deserialize)]
pub(super) struct Page<'a> {
    pub metadata: PageMeta,
    #[serde(borrow, default)]
    pub items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    #[serde(default)]
    pub resource_version: String,
    #[serde(rename = "continue")]
    pub next: Option<String>,
}

impl<'a> Page<'a> {
    pub fn read(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

/// One line of a watch.
pub(super) enum Frame<'a> {
    /// An object came, changed, or went.
    Object { deleted: bool, object: &'a str },
    /// Nothing happened up to this version.
    Bookmark {
        version: String,
        /// A streamed list is complete.
        initial_end: bool,
    },
    /// Something that this program does not know.
    Unknown,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl<'a> Frame<'a> {
    /// # Errors
    /// The status that the server sends in the place of an object, or a line that is no frame.
    pub fn read(line: &'a [u8], path: &str) -> Result<Self, ApiError> {
        let malformed = |error: serde_json::Error| ApiError::Malformed {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let Line { kind, object } = serde_json::from_slice(line).map_err(malformed)?;
        Ok(match kind.as_str() {
            "ADDED" | "MODIFIED" => Self::Object { deleted: false, object: object.get() },
            "DELETED" => Self::Object { deleted: true, object: object.get() },
            "BOOKMARK" => {
                let Bookmark { metadata } =
                    serde_json::from_str(object.get()).map_err(malformed)?;
                let ends = metadata.annotations.unwrap_or_default();
                let initial_end =
                    ends.get("k8s.io/initial-events-end").is_some_and(|value| value == "true");
                Self::Bookmark { version: metadata.resource_version, initial_end }
            }
            "ERROR" => {
                let status: Status = serde_json::from_str(object.get()).map_err(malformed)?;
                return Err(ApiError::Status { path: path.to_owned(), status });
            }
            _ => Self::Unknown,
        })
    }
}
