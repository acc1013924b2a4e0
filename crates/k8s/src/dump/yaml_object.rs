//! A Kubernetes object out of YAML, with its names and labels as the text that they are.
//!
//! kubectl leaves a label such as `12e5678`, part of a commit hash, without quotes, because its
//! YAML library does not take a number that overflows for a number. To others it is infinity.
//! Where an object holds only text, text is asked for.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Where in an object a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The object itself.
    Object,
    /// `metadata`.
    Metadata,
    /// `metadata.labels` or `metadata.annotations`.
    Labels,
    /// A value that is text.
    Text,
    /// `spec` of the object.
    Spec,
    /// Anywhere else.
    Elsewhere,
}

impl Place {
    pub(super) fn below(self, field: &str) -> Self {
        match (self, field) {
            (Self::Object, "metadata") => Self::Metadata,
            (Self::Object, "spec") => Self::Spec,
            (Self::Metadata, "labels" | "annotations") => Self::Labels,
            (Self::Metadata, "name" | "namespace") | (Self::Spec, "nodeName") => Self::Text,
            (Self::Labels, _) => Self::Text,
            _ => Self::Elsewhere,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self {
            Self::Text => from.deserialize_option(Values(self)),
            _ => from.deserialize_any(Values(self)),
        }
    }
}

struct Values(Place);

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a Kubernetes object")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.0 {
            Place::Text => from.deserialize_str(self),
            _ => from.deserialize_any(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element_seed(Place::Elsewhere)? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(field) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self.0.below(&field))?;
            read.insert(field, value);
        }
        Ok(Value::Object(read))
    }
}
