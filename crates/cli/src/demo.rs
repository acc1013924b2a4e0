//! `demo`: a simulated cluster, the loop that runs on real ones, and its page, in one process.

mod live;
mod report;
mod world;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use gpu_autoscaler_reconciler::Policy;
use gpu_autoscaler_sim::Driver;

use crate::exit::Exit;
use crate::output::{self, Format, OutputArgs};
use crate::source;

/// Arguments of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Makes the world: equal seeds, equal worlds.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// End after this much virtual time, such as `10m` or `7d`; without it, at Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    for_: Option<Duration>,
    /// Virtual seconds in a second, or `max`: as fast as it goes. `--speed max --for TIME` shows
    /// no page, ends by itself and prints the same bytes every time.
    #[arg(long, default_value = "60", value_name = "N|max", value_parser = speed)]
    speed: Speed,
    /// GPUs of the simulated cluster, at least; with a trace, so many of its own.
    #[arg(long, default_value_t = 96, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gpus: u32,
    /// Node list of an openb trace (`openb_node_list_gpu_node.csv`).
    #[arg(long, value_name = "FILE", requires = "trace_pods")]
    trace_nodes: Option<std::path::PathBuf>,
    /// Pod list of an openb trace (`openb_pod_list_default.csv`).
    #[arg(long, value_name = "FILE", requires = "trace_nodes")]
    trace_pods: Option<std::path::PathBuf>,
    /// Port of the page on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    port: u16,
    /// End as soon as the page has been served once, and say how long that took.
    #[arg(long)]
    first_screen_exit: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// How virtual time goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// As fast as it goes.
    Max,
    /// So many virtual seconds in a second.
    Times(f64),
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.parse::<f64>() {
        Ok(times) if (0.1..=100_000.0).contains(&times) => Ok(Speed::Times(times)),
        _ => Err("neither `max` nor a number from 0.1 to 100000".to_owned()),
    }
}

/// The longest run: a year takes half an hour at full speed.
const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);

fn span(text: &str) -> Result<Duration, String> {
    match source::span(text)? {
        span if span <= SPAN_MAX => Ok(span),
        _ => Err("longer than 366 days".to_owned()),
    }
}

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<Exit> {
    let begun = std::time::Instant::now();
    let (spec, origin) = world::spec(args)?;
    let seed = spec.seed;
    let mut driver = Driver::new(gpu_autoscaler_sim::World::new(&spec), Policy::published());
    match (args.speed, args.for_) {
        (Speed::Max, Some(span)) if !args.first_screen_exit => {
            let until = driver.world.start().after(span);
            driver.run(until);
        }
        (speed, span) => {
            let served = live::Serve {
                port: args.port,
                speed,
                until: span.map(|span| driver.world.start().after(span)),
                begun,
                first_screen_exit: args.first_screen_exit,
            };
            driver = live::serve(driver, &served)?;
            if args.first_screen_exit {
                return Ok(Exit::Done);
            }
        }
    }
    let report = report::Report::new(seed, &origin, &spec, &driver);
    let text = match args.output.format {
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
        Format::Csv => report.findings_csv()?,
        format => report.text(format),
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

/// Reads a file of a trace.
fn read(path: &std::path::Path) -> Result<String> {
    let size =
        std::fs::metadata(path).with_context(|| format!("open trace `{}`", path.display()))?.len();
    let most = gpu_autoscaler_sim::openb::TEXT_MAX as u64;
    if size > most {
        bail!("trace `{}` has {size} bytes, at most {most} are read", path.display());
    }
    std::fs::read_to_string(path).with_context(|| format!("read trace `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_an_end_and_speeds_are_read_as_people_write_them() {
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert!(span("400d").is_err());
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("60"), Ok(Speed::Times(60.0)));
        for bad in ["", "fast", "0", "-1", "NaN", "inf"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
