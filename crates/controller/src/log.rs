//! Log and traces: what is written to stderr, and what is sent to a collector when one is named.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::arguments::{Arguments, LogForm, LogLevel, TimeForm};

/// Time for one batch of spans to be taken by the collector.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);

/// What is left to be sent when the process ends.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what is left; a collector that does not answer costs a few seconds and nothing else.
    pub fn flush(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(EXPORT_TIME_MAX)
        {
            tracing::warn!(%error, "traces were not sent");
        }
    }
}

/// Sets up the log, and the traces if a collector is named. Not within an asynchronous runtime:
/// spans are sent by a thread of their own.
///
/// # Errors
/// The collector's address makes no sense.
pub fn set_up(arguments: &Arguments) -> Result<Traces> {
    let level = match arguments.zap_log_level {
        _ if arguments.zap_devel => LevelFilter::DEBUG,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_timer(Time(arguments.zap_time_encoding));
    let log = if arguments.zap_devel || arguments.zap_encoder == LogForm::Console {
        log.with_ansi(false).boxed()
    } else {
        log.json().flatten_event(true).boxed()
    };
    let provider = arguments.otlp_endpoint.as_deref().map(provider).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(is_ours))
    });
    // What the client of the API server says of a failed request is said by whoever asked for it.
    let level = Targets::new().with_default(level).with_target("kube_client", LevelFilter::OFF);
    tracing_subscriber::registry().with(log.with_filter(level)).with(traces).init();
    Ok(Traces(provider))
}

/// What sends the spans must not be traced itself.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("gpu_autoscaler") && *metadata.level() <= tracing::Level::INFO
}

/// Source: <https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>, the default path.
fn provider(endpoint: &str) -> Result<SdkTracerProvider> {
    let endpoint = endpoint.trim_end_matches('/');
    let endpoint = match endpoint.ends_with("/v1/traces") {
        true => endpoint.to_owned(),
        false => format!("{endpoint}/v1/traces"),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&endpoint)
        .with_timeout(EXPORT_TIME_MAX)
        .build()
        .with_context(|| format!("read `--otlp-endpoint`: `{endpoint}`"))?;
    let resource = Resource::builder()
        .with_service_name("gpu-autoscaler-controller")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Writes the time of a message.
struct Time(TimeForm);

impl FormatTime for Time {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        write_time(self.0, SystemTime::now(), to)
    }
}

fn write_time(form: TimeForm, at: SystemTime, to: &mut impl fmt::Write) -> fmt::Result {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let calendar = || jiff::Timestamp::try_from(at).unwrap_or_default();
    match form {
        TimeForm::Epoch => write!(to, "{}.{:06}", since.as_secs(), since.subsec_micros()),
        TimeForm::Millis => write!(to, "{}", since.as_millis()),
        TimeForm::Nanos => write!(to, "{}", since.as_nanos()),
        TimeForm::Iso8601 => write!(to, "{:.3}", calendar()),
        TimeForm::Rfc3339 => write!(to, "{:.0}", calendar()),
        TimeForm::Rfc3339Nano => write!(to, "{:.9}", calendar()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_every_published_form() {
        let at = UNIX_EPOCH + Duration::from_nanos(1_763_800_000_123_456_789);
        let write = |form| {
            let mut text = String::new();
            write_time(form, at, &mut text).expect("a string takes everything");
            text
        };
        assert_eq!(write(TimeForm::Epoch), "1763800000.123456");
        assert_eq!(write(TimeForm::Millis), "1763800000123");
        assert_eq!(write(TimeForm::Nanos), "1763800000123456789");
        assert_eq!(write(TimeForm::Iso8601), "2025-11-22T08:26:40.123Z");
        assert_eq!(write(TimeForm::Rfc3339), "2025-11-22T08:26:40Z");
        assert_eq!(write(TimeForm::Rfc3339Nano), "2025-11-22T08:26:40.123456789Z");
    }
}
