//! What `status`, `plan` and `demo` print for people.

use gpu_autoscaler_controller::api::{Amount, Finding, Status, Totals, Unknown, Usage};

use crate::output::Rows;

/// A share as a percentage; `-` where it is not known.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}%", share * 100.0))
}

/// Money with two decimals; `-` where it is not known.
pub fn money(amount: Option<&Amount>) -> String {
    let rate = amount.and_then(Amount::rate);
    rate.map_or("-".into(), |rate| rate.hourly().to_string())
}

/// Findings, one a row.
pub fn findings(findings: &[Finding], wide: bool) -> Rows {
    let mut headings =
        vec!["KIND", "NAMESPACE", "POD", "GPUS", "COMPUTE", "MEMORY", "SCORE", "SAVES/H"];
    if wide {
        headings.extend(["NODE", "MODEL", "P95", "COUNTER", "OWNER", "SINCE"]);
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
    Rows { headings, rows: findings.iter().map(row).collect(), numbers: vec![3, 4, 5, 6, 7] }
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
        headings: vec!["NODE", "GPUS", "POD", "WHY"],
        rows: unknown.iter().map(row).collect(),
        numbers: vec![1],
    }
}

/// Active pods and what they make of their GPUs, one a row.
pub fn pods(status: &Status, wide: bool) -> Rows {
    let mut headings = vec!["NAMESPACE", "POD", "NODE", "GPUS", "GPU UTIL", "MEM UTIL"];
    if wide {
        headings.extend(["P95", "COUNTER", "MEM USED", "MODEL"]);
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
            row.extend([
                percent(usage.map(|u| u.activity_p95)),
                usage.map_or("-".into(), |u| u.activity_source.clone()),
                memory(usage),
                pod.model.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        row
    });
    Rows { headings, rows: rows.collect(), numbers: vec![3, 4, 5] }
}

fn memory(usage: Option<&Usage>) -> String {
    let bytes = usage.and_then(|u| u.fb_max_bytes);
    bytes.map_or("-".into(), |bytes| format!("{}MB", bytes >> 20))
}

/// The sums, one a line.
pub fn totals(totals: &Totals) -> String {
    let mut text = format!(
        "GPU nodes:        {}\nGPUs:             {}, {} measured, {} requested\n",
        totals.gpu_nodes, totals.gpus, totals.gpus_measured, totals.gpus_requested
    );
    let note = |count: u32, what: &str| match count {
        0 => String::new(),
        1 => format!(" ({what} of 1 more is not known)"),
        _ => format!(" ({what} of {count} more is not known)"),
    };
    text.push_str(&format!(
        "Cost per hour:    {}{}\n",
        money(totals.cost_per_hour.as_ref()),
        note(totals.nodes_unpriced, "the price"),
    ));
    text.push_str(&format!(
        "Could save:       {} per hour{}\n",
        money(totals.saving_per_hour.as_ref()),
        note(totals.findings_unpriced, "the saving"),
    ));
    text
}
