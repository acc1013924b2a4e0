//! What `status`, `plan` and `demo` print for people.

use gpu_autoscaler_controller::api::{
    Amount, Finding, Pod, Status, Totals, Unknown, Usage, Waiting,
};

use crate::output::{Format, Rows, name, number, prose, word};

/// A share as a percentage; `-` where it is not known.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}%", share * 100.0))
}

/// Money with two decimals; `-` where it is not known.
pub fn money(amount: Option<&Amount>) -> String {
    let rate = amount.and_then(Amount::rate);
    rate.map_or("-".into(), |rate| rate.hourly().to_string())
}

/// What a month of 720 hours costs, with two decimals; `-` where it is not known.
pub fn monthly(amount: Option<&Amount>) -> String {
    money(amount.and_then(Amount::monthly).as_ref())
}

/// What twelve such months cost; `-` where it is not known.
pub fn yearly(amount: Option<&Amount>) -> String {
    money(amount.and_then(Amount::yearly).as_ref())
}

/// Bytes in MiB, as exporters count them.
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Findings, one a row.
pub fn findings(findings: &[Finding], format: Format) -> Rows {
    let wide = format == Format::Wide;
    let mut columns = vec![word("KIND"), name("NAMESPACE"), name("POD"), number("GPUS")];
    columns.extend(["COMPUTE", "MEMORY", "SCORE", "SAVES/H"].map(number));
    if wide {
        columns.extend([name("NODE"), word("MODEL"), number("P95"), word("COUNTER")]);
        columns.extend([name("OWNER"), word("SINCE")]);
    }
    let row = |f: &Finding| {
        let mut row = vec![
            f.kind.clone(),
            f.namespace.clone(),
            f.pod.clone(),
            f.devices.len().to_string(),
            percent(f.usage.as_ref().map(|usage| usage.activity_mean)),
            percent(f.usage.as_ref().and_then(|usage| usage.fb_mean)),
            format!("{:.0}", f.score.total),
            money(f.saving_per_hour.as_ref()),
        ];
        if wide {
            row.extend([
                f.node.clone(),
                f.model.clone().unwrap_or_else(|| "-".into()),
                percent(f.usage.as_ref().map(|usage| usage.activity_p95)),
                f.usage.as_ref().map_or("-".into(), |usage| usage.activity_source.clone()),
                f.owner.clone().unwrap_or_else(|| "-".into()),
                f.since.clone(),
            ]);
        }
        row
    };
    Rows { columns, rows: findings.iter().map(row).collect() }
}

/// What is not known, one a row.
pub fn unknown(unknown: &[Unknown]) -> Rows {
    let row = |u: &Unknown| {
        let pod = match (&u.namespace, &u.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            _ => "-".into(),
        };
        vec![u.node.clone(), u.gpus.to_string(), pod, u.message.clone()]
    };
    Rows {
        columns: vec![name("NODE"), number("GPUS"), name("POD"), prose("WHY")],
        rows: unknown.iter().map(row).collect(),
    }
}

/// Pods that wait for a node and what packing says of them, one a row.
pub fn waiting(waiting: &[Waiting]) -> Rows {
    let row = |w: &Waiting| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let gpus = w.gpus.map_or_else(|| "-".into(), |gpus| gpus.to_string());
        let fits_on = or_dash(&w.fits_on);
        vec![w.namespace.clone(), w.pod.clone(), gpus, fits_on, or_dash(&w.message)]
    };
    let columns = vec![
        name("NAMESPACE"),
        name("POD"),
        number("GPUS"),
        name("FITS ON"),
        prose("PACKING SAYS"),
    ];
    Rows { columns, rows: waiting.iter().map(row).collect() }
}

/// Active pods and what they make of their GPUs, one a row.
pub fn pods(status: &Status, format: Format) -> Rows {
    let wide = format == Format::Wide;
    let mut columns = vec![name("NAMESPACE"), name("POD"), name("NODE"), number("GPUS")];
    columns.extend(["GPU UTIL", "MEM UTIL"].map(number));
    if wide {
        columns.extend(["MEM USED", "POWER", "TEMP", "P95"].map(number));
        columns.extend([word("COUNTER"), word("MODEL")]);
    }
    let rows = status.pods.iter().map(|pod| {
        let usage = pod.usage.as_ref();
        let mut row = vec![
            pod.namespace.clone(),
            pod.pod.clone(),
            pod.node.clone().unwrap_or_else(|| "-".into()),
            pod.gpus.to_string(),
            percent(usage.map(|u| u.activity_mean)),
            percent(usage.and_then(|u| u.fb_mean)),
        ];
        if wide {
            let (watts, celsius) = power_and_heat(status, pod);
            row.extend([
                memory(usage),
                watts.map_or("-".into(), |watts| format!("{watts:.0}W")),
                celsius.map_or("-".into(), |celsius| format!("{celsius}C")),
                percent(usage.map(|u| u.activity_p95)),
                usage.map_or("-".into(), |u| u.activity_source.clone()),
                pod.model.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        row
    });
    Rows { columns, rows: rows.collect() }
}

/// Power of all devices of a pod together, and the temperature of the hottest; nothing where one
/// of them does not say, or is shared, because then it is not the pod's alone.
fn power_and_heat(status: &Status, pod: &Pod) -> (Option<f64>, Option<i16>) {
    let held = || {
        let of_node = status.devices.iter().filter(|d| Some(&d.node) == pod.node.as_ref());
        of_node.filter(|device| pod.devices.contains(&device.device))
    };
    if held().count() != pod.devices.len() || pod.devices.is_empty() {
        return (None, None);
    }
    let alone = held().all(|device| device.holders.len() == 1);
    let watts = held().map(|device| device.watts).sum::<Option<f64>>();
    let celsius: Option<Vec<i16>> = held().map(|device| device.celsius).collect();
    (watts.filter(|_| alone), celsius.and_then(|all| all.into_iter().max()))
}

fn memory(usage: Option<&Usage>) -> String {
    let bytes = usage.and_then(|u| u.fb_max_bytes);
    bytes.map_or("-".into(), |bytes| format!("{}MB", bytes >> 20))
}

/// The sums, one a line.
pub fn totals(totals: &Totals) -> String {
    let mut text = counts(totals);
    let note = |count: u32, what: &str| match count {
        0 => String::new(),
        1 => format!(" ({what} of 1 more is not known)"),
        _ => format!(" ({what} of {count} more is not known)"),
    };
    text.push_str(&format!(
        "Cost per hour:      {}{}\n",
        money(totals.cost_per_hour.as_ref()),
        note(totals.nodes_unpriced, "the price"),
    ));
    text.push_str(&format!(
        "Could save:         {} per hour{}\n",
        money(totals.saving_per_hour.as_ref()),
        note(totals.findings_unpriced, "the saving"),
    ));
    text
}

/// The sums that are no money.
pub fn counts(totals: &Totals) -> String {
    format!(
        "GPU nodes:          {}\nGPUs:               {}, {} measured, {} requested\n\
         GPU utilization:    {} on average of pods that are measured, memory {}\n",
        totals.gpu_nodes,
        totals.gpus,
        totals.gpus_measured,
        totals.gpus_requested,
        percent(totals.activity),
        percent(totals.fb)
    )
}

/// A finding in one sentence.
pub fn in_words(finding: &Finding) -> String {
    if let Some(stuck) = &finding.stuck {
        return stuck.clone();
    }
    let usage = finding.usage.as_ref();
    format!(
        "compute {} ({}), memory {}, score {:.0}, saves {} per hour",
        percent(usage.map(|usage| usage.activity_mean)),
        usage.map_or("-", |usage| &usage.activity_source),
        percent(usage.and_then(|usage| usage.fb_mean)),
        finding.score.total,
        money(finding.saving_per_hour.as_ref()),
    )
}
