//! Manifests as people write them: YAML or JSON, several documents, lists.

use serde_json::Value;

/// Largest manifest that is read.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;

/// Text that is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More than is read.
    #[error("the manifest has {bytes} bytes, more than {MANIFEST_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Neither YAML nor JSON.
    #[error("the manifest is neither YAML nor JSON: {why}")]
    Malformed {
        /// Where and why.
        why: String,
    },
}

/// Every object in `text`, lists taken apart, in order.
///
/// # Errors
/// [`ManifestError`] when the text as a whole cannot be read.
pub fn objects(text: &str) -> Result<Vec<Value>, ManifestError> {
    if text.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge { bytes: text.len() });
    }
    // JSON is YAML, save for what the limits below say about depth.
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| ManifestError::Malformed { why: error.without_snippet().to_string() })?;
    let mut objects = Vec::new();
    for mut document in documents {
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            Some(other) => {
                document["items"] = other;
                objects.push(document);
            }
            None if document.is_null() => {}
            None => objects.push(document),
        }
    }
    Ok(objects)
}

/// An object's kind and name, for messages.
pub(crate) fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().map(|text| crate::decode::clip(text, 253));
    let kind = text(&object["kind"]).unwrap_or_else(|| "object".to_owned());
    match text(&object["metadata"]["name"]) {
        Some(name) => format!("{kind} `{name}`"),
        None => format!("{kind} without a name"),
    }
}
