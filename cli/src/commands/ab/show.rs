//! Experiments for people: a table of arms, and a verdict in words.

use themis_kernel::ab::lifecycle::{Promotion, Status};
use themis_kernel::ab::policy::{GivenUp, Waiting};
use themis_kernel::ab::report::{ArmReport, Report};

use crate::output::table;

/// One line for each.
pub(super) fn lines(all: &[Report]) -> String {
    let rows = all.iter().map(|it| {
        let outcomes: u64 = it.arms.iter().map(|arm| arm.requests).sum();
        let started = it
            .started
            .map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string());
        [it.id.to_string(), it.plugin.clone(), status(it), started, outcomes.to_string()]
    });
    table(["id", "plugin", "status", "since", "outcomes"], rows)
}

/// What is known, how sure that is, and how much longer.
pub(super) fn verdict(report: &Report) -> String {
    let mut text = vec![
        format!("{} of {}: {}", report.id, report.plugin, status(report)),
        String::new(),
        arms(report),
        String::new(),
        report.sentence(),
    ];
    if let Some(probability) = report.ratio_probability {
        text.push(format!("units are divided as they should be (p = {probability:.3})"));
    }
    if report.status == Status::Running {
        text.extend(report.waiting.iter().map(|it| format!("waiting for {}", waiting(report, it))));
        if report.waiting.is_empty() {
            text.push("waiting for evidence".to_owned());
        }
    }
    if let Some(rate) = report.false_positives {
        text.push(format!(
            "this policy finds a winner in {:.0} % of experiments between versions that are the same (simulated)",
            100.0 * rate
        ));
    }
    if report.dropped > 0 {
        text.push(format!("{} outcomes or events were not counted", report.dropped));
    }
    text.join("\n")
}

fn status(report: &Report) -> String {
    let name = |arm: usize| report.arms.get(arm).map_or("?", |it| it.variant.as_str());
    match &report.status {
        Status::Draft => "its arms are being loaded".to_owned(),
        Status::Running => "running".to_owned(),
        Status::Concluded { arm, promotion } => match promotion {
            Promotion::Pending => format!("{} has won and is being promoted", name(*arm)),
            Promotion::Promoted => format!("{} has won and is the current version", name(*arm)),
            Promotion::Failed { code, reason } => {
                format!("{} has won and is NOT promoted: {code}: {reason}", name(*arm))
            }
        },
        Status::RolledBack { why } => format!("rolled back: {}", given_up(why, name)),
        Status::Cancelled => "stopped".to_owned(),
    }
}

fn given_up<'r>(why: &GivenUp, name: impl Fn(usize) -> &'r str) -> String {
    match why {
        GivenUp::ControlIsBetter => "the control is better".to_owned(),
        GivenUp::Guard { metric, arm } => format!("{} has made {metric} worse", name(*arm)),
        GivenUp::TimeIsUp => "its time is up, and there is no evidence".to_owned(),
        GivenUp::NoTreatment => "no treatment serves any more".to_owned(),
    }
}

fn waiting(report: &Report, waiting: &Waiting) -> String {
    let name = |arm: &usize| report.arms.get(*arm).map_or("?", |it| it.variant.as_str());
    match waiting {
        Waiting::Outcomes { arm, has, wants } => {
            format!("outcomes of {}: {has} of {wants}", name(arm))
        }
        Waiting::Conversions { arm, has, wants } => {
            format!("conversions, and outcomes without one, of {}: {has} of {wants}", name(arm))
        }
        Waiting::Duration { left } => format!("its time: {} s more", left.as_secs()),
        Waiting::Ratio { probability } => format!(
            "a right ratio: units are divided in a way that chance explains with p = {probability:.2e}; \
             something loses or adds units of one arm, and nothing is concluded until that is found"
        ),
        Waiting::Evidence => "evidence".to_owned(),
    }
}

fn arms(report: &Report) -> String {
    let maybe = |value: Option<f64>, shown: &dyn Fn(f64) -> String| {
        value.map_or_else(|| "-".to_owned(), shown)
    };
    let row = |arm: &ArmReport| {
        let range = |range: Option<themis_kernel::ab::sequence::Interval>| {
            range.map_or_else(|| "-".to_owned(), |it| format!("{:.4} to {:.4}", it.low, it.high))
        };
        [
            arm.variant.clone(),
            maybe(arm.units, &|it| format!("{it:.0}")),
            arm.requests.to_string(),
            format!("{:.4}", arm.mean),
            range(arm.credible),
            range(arm.difference),
            maybe(arm.probability_best, &|it| format!("{:.1} %", 100.0 * it)),
            maybe(arm.latency_p99, &|it| format!("{:.1} µs", 1e6 * it)),
        ]
    };
    let head =
        ["arm", "units", "outcomes", "mean", "95 % credible", "over the control", "best", "p99"];
    table(head, report.arms.iter().map(row))
}
