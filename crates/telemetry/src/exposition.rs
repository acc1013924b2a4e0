//! The Prometheus text exposition format.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, text format 0.0.4.

use std::borrow::Cow;
use std::fmt;

/// Longest line that is read, in bytes. The longest seen of DCGM exporter is below 2 KiB.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Most labels of one series.
pub const LABELS_MAX: usize = 128;

/// One sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    /// Name of the metric.
    pub name: &'a str,
    /// Labels in the order in which they stand.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The value, not looked at: it may be NaN or infinite.
    pub value: f64,
    /// Milliseconds since 1970, where the text says so.
    pub timestamp_millis: Option<i64>,
}

impl Series<'_> {
    /// The value of a label; `None` when it is absent or empty, which the format holds equal.
    pub fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.iter().find(|(key, _)| *key == name)?;
        (!value.is_empty()).then_some(value.as_ref())
    }
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: LineFaultKind,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFaultKind {
    /// Not UTF-8.
    NotUtf8,
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// More labels than [`LABELS_MAX`].
    TooManyLabels,
    /// Does not begin with the name of a metric.
    Name,
    /// Labels are malformed or not closed, as at the end of a truncated text.
    Labels,
    /// The same label twice.
    LabelTwice,
    /// The value is missing or no number.
    Value,
    /// The timestamp is no integer, or something follows it.
    Timestamp,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.what {
            LineFaultKind::NotUtf8 => f.write_str("not UTF-8"),
            LineFaultKind::TooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            LineFaultKind::TooManyLabels => write!(f, "more than {LABELS_MAX} labels"),
            LineFaultKind::Name => f.write_str("no metric name at its start"),
            LineFaultKind::Labels => f.write_str("malformed or unclosed labels"),
            LineFaultKind::LabelTwice => f.write_str("a label stands twice"),
            LineFaultKind::Value => f.write_str("no number as value"),
            LineFaultKind::Timestamp => f.write_str("no integer as timestamp"),
        }
    }
}

impl std::error::Error for LineFault {}

/// Reads line by line; comments and empty lines are passed over.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Result<Series<'_>, LineFault>> {
    text.split(|byte| *byte == b'\n').enumerate().filter_map(|(at, line)| {
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            return None;
        }
        Some(parse_line(line).map_err(|what| LineFault { line: at + 1, what }))
    })
}

fn parse_line(line: &[u8]) -> Result<Series<'_>, LineFaultKind> {
    if line.len() > LINE_BYTES_MAX {
        return Err(LineFaultKind::TooLong);
    }
    let line = std::str::from_utf8(line).map_err(|_| LineFaultKind::NotUtf8)?;
    let (name, rest) = split_name(line, true).ok_or(LineFaultKind::Name)?;
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => parse_labels(inner)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().and_then(parse_value).ok_or(LineFaultKind::Value)?;
    let timestamp_millis = match words.next() {
        Some(word) => Some(word.parse().map_err(|_| LineFaultKind::Timestamp)?),
        None => None,
    };
    if words.next().is_some() {
        return Err(LineFaultKind::Timestamp);
    }
    Ok(Series { name, labels, value, timestamp_millis })
}

/// Splits a metric's or, without colons, a label's name from the start of `text`.
fn split_name(text: &str, colons: bool) -> Option<(&str, &str)> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
    let end = text.bytes().position(|b| !legal(b)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let first = name.bytes().next()?;
    (!first.is_ascii_digit()).then_some((name, rest))
}

type LabelPairs<'a> = Vec<(&'a str, Cow<'a, str>)>;

fn parse_labels(mut text: &str) -> Result<(LabelPairs<'_>, &str), LineFaultKind> {
    let mut labels: LabelPairs<'_> = Vec::with_capacity(12);
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, rest) = split_name(text, false).ok_or(LineFaultKind::Labels)?;
        let rest = rest.trim_start().strip_prefix('=').ok_or(LineFaultKind::Labels)?;
        let rest = rest.trim_start().strip_prefix('"').ok_or(LineFaultKind::Labels)?;
        let (value, rest) = parse_quoted(rest).ok_or(LineFaultKind::Labels)?;
        if labels.iter().any(|(key, _)| *key == name) {
            return Err(LineFaultKind::LabelTwice);
        }
        if labels.len() == LABELS_MAX {
            return Err(LineFaultKind::TooManyLabels);
        }
        labels.push((name, value));
        text = rest.trim_start();
        match text.strip_prefix(',') {
            Some(rest) => text = rest,
            None if text.starts_with('}') => {}
            None => return Err(LineFaultKind::Labels),
        }
    }
}

/// Reads up to the closing quote; `None` when there is none or an escape is unknown.
fn parse_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.bytes().position(|b| b == b'"' || b == b'\\')?;
    if text.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = text[..end].to_owned();
    let mut chars = text[end..].char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((Cow::Owned(value), &text[end + at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            _ => value.push(char),
        }
    }
    None
}

/// A Go `ParseFloat` number; the format's `+Inf`, `-Inf` and `NaN` are among them.
fn parse_value(word: &str) -> Option<f64> {
    // Rust also takes `infinity`, in any case, as Go does.
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Expect) {
        let mut found = String::new();
        for line in parse(text.as_bytes()) {
            match line {
                Ok(s) => found.push_str(&format!(
                    "{} {:?} {} {:?}\n",
                    s.name, s.labels, s.value, s.timestamp_millis
                )),
                Err(fault) => found.push_str(&format!("{fault}\n")),
            }
        }
        expected.assert_eq(&found);
    }

    #[test]
    fn what_the_format_allows_is_read() {
        check(
            "# HELP a text\n\na 1\nb:c{} 2 1700000000000\n d { x = \"1\" , y=\"2\", } 3e-2\n\
             e{p=\"C:\\\\dir\",q=\"say \\\"hi\\\"\\n\"} +Inf\nf -5\r\n",
            expect![[r#"
                a [] 1 None
                b:c [] 2 Some(1700000000000)
                d [("x", "1"), ("y", "2")] 0.03 None
                e [("p", "C:\\dir"), ("q", "say \"hi\"\n")] inf None
                f [] -5 None
            "#]],
        );
    }

    #[test]
    fn a_bad_line_is_named_and_costs_no_other() {
        check(
            "ok 1\n9bad 1\nx{a=\"1\nx{a=\"1\"\nx{a=1} 2\nx{a=\"1\"b=\"2\"} 2\nx{a=\"\\q\"} 1\n\
             x{a=\"1\",a=\"2\"} 1\nx\nx one\nx 1 2 3\nx 1 1.5\n4 Active Workloads\nok 2\n",
            expect![[r#"
                ok [] 1 None
                line 2: no metric name at its start
                line 3: malformed or unclosed labels
                line 4: malformed or unclosed labels
                line 5: malformed or unclosed labels
                line 6: malformed or unclosed labels
                line 7: malformed or unclosed labels
                line 8: a label stands twice
                line 9: no number as value
                line 10: no number as value
                line 11: no integer as timestamp
                line 12: no integer as timestamp
                line 13: no metric name at its start
                ok [] 2 None
            "#]],
        );
    }

    #[test]
    fn hostile_input_is_bounded() {
        let long = format!("x{{a=\"{}\"}} 1", "y".repeat(LINE_BYTES_MAX));
        let many: String = (0..=LABELS_MAX).map(|i| format!("l{i}=\"\",")).collect();
        let faults: Vec<_> = parse(format!("{long}\nx{{{many}}} 1").as_bytes())
            .chain(parse(b"x{a=\"\xff\"} 1"))
            .map(|line| line.expect_err("bad").what)
            .collect();
        use LineFaultKind::{NotUtf8, TooLong, TooManyLabels};
        assert_eq!(faults, [TooLong, TooManyLabels, NotUtf8]);
    }

    proptest! {
        #[test]
        fn no_input_panics(text in prop::collection::vec(any::<u8>(), 0..400)) {
            for line in parse(&text) { let _ = line; }
        }

        #[test]
        fn what_is_written_is_read_back(
            labels in prop::collection::btree_map("[a-z_][a-z0-9_]{0,5}", "[ -~\n\"\\\\]{0,9}", 0..6),
            value in any::<f64>().prop_filter("NaN differs from itself", |v| !v.is_nan()),
        ) {
            let quoted: Vec<String> = labels.iter().map(|(k, v)| {
                let v = v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{k}=\"{v}\"")
            }).collect();
            let text = format!("m{{{}}} {value:?}\n", quoted.join(","));
            let read: Vec<_> = parse(text.as_bytes()).collect();
            prop_assert_eq!(read.len(), 1);
            let series = read[0].as_ref().expect("valid");
            prop_assert_eq!(series.value, value);
            let back: Vec<_> = series.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            prop_assert_eq!(back, labels.into_iter().collect::<Vec<_>>());
        }
    }
}
