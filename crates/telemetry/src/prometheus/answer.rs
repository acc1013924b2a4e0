//! What Prometheus answers, as it is written in JSON.

use std::fmt;

use gpu_autoscaler_model::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Visitor};

use super::{Labels, Line};
use crate::http::ReadError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reply<T> {
    // Without it serde would want `T` to have a default.
    #[serde(default = "Option::default")]
    pub data: Option<T>,
    pub error: Option<String>,
    pub error_type: Option<String>,
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What a range selector or a range query gives.
#[derive(Debug, PartialEq)]
pub(super) struct Matrix {
    pub result: Vec<MatrixSeries>,
}

/// What an instant query gives.
pub(super) struct Vector {
    result: Vec<VectorSeries>,
}

/// The type of a result stands before the result, so nothing is read twice.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Found {
    Matrix(Vec<MatrixSeries>),
    Vector(Vec<VectorSeries>),
    Scalar(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct MatrixSeries {
    pub metric: Labels,
    pub values: Vec<(f64, Number)>,
}

#[derive(Deserialize)]
struct VectorSeries {
    metric: Labels,
    value: (f64, Number),
}

/// A number in a string; `None` where it is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number(pub Option<f64>);

impl<'de> Deserialize<'de> for Matrix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Found::deserialize(from)? {
            Found::Matrix(result) => Ok(Self { result }),
            _ => Err(D::Error::custom("the result is no matrix")),
        }
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Found::deserialize(from)? {
            Found::Vector(result) => Ok(Self { result }),
            _ => Err(D::Error::custom("the result is no vector")),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.parse().ok()))
            }
        }
        from.deserialize_str(Text)
    }
}

impl Matrix {
    pub fn lines(self) -> Vec<Line> {
        let line = |series: MatrixSeries| Line {
            labels: series.metric,
            points: series.values.into_iter().filter_map(point).collect(),
        };
        self.result.into_iter().map(line).collect()
    }
}

impl Vector {
    pub fn lines(self) -> Vec<Line> {
        let line = |series: VectorSeries| Line {
            labels: series.metric,
            points: point(series.value).into_iter().collect(),
        };
        self.result.into_iter().map(line).collect()
    }
}

fn point((secs, value): (f64, Number)) -> Option<(Timestamp, f64)> {
    Some((Timestamp::from_millis(millis(secs))?, value.0?))
}

/// Prometheus writes milliseconds as decimals of a second; the product is within 2^53.
pub(super) fn millis(secs: f64) -> i64 {
    (secs * 1000.0).round() as i64
}

/// Prometheus' own words in place of the JSON around them.
pub(super) fn in_words(error: ReadError) -> ReadError {
    let ReadError::Status { address, status, body } = error else { return error };
    let body = match serde_json::from_str::<Reply<IgnoredAny>>(&body) {
        Ok(Reply { error: Some(error), error_type: Some(kind), .. }) => format!("{kind}: {error}"),
        _ => body,
    };
    ReadError::Status { address, status, body }
}
