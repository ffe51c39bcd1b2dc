//! `ab simulate`: a stopping rule tried on thousands of experiments whose truth is known.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use textplots::{Chart, Plot, Shape};
use themis_kernel::ab::assign::Weights;
use themis_kernel::ab::policy::{Allocation, Policy, Rule};
use themis_kernel::ab::simulate::{Report, Scenario, simulate};

use crate::output::{Failure, Printer, table};

/// Dots of the plot.
const PLOT: (u32, u32) = (120, 50);

/// What is tried.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// When an experiment stops
    #[arg(long, value_enum, default_value_t = Named::Both)]
    rule: Named,
    /// The probability to be the best that is wanted (thompson, both)
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    threshold: f64,
    /// How often the confidence sequence may leave out the truth (anytime, both)
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    alpha: f64,
    /// The control's conversion rate
    #[arg(long, default_value_t = 0.05, value_name = "RATE")]
    rate: f64,
    /// How much higher the treatment's is where it is better, for the power
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    effect: f64,
    /// How many arms there are; the treatments are alike
    #[arg(long, default_value_t = 2, value_name = "N")]
    arms: usize,
    /// Outcomes of all arms between two looks
    #[arg(long, default_value_t = 100, value_name = "N")]
    every: u64,
    /// Outcomes of all arms after which an experiment ends without evidence
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    most: u64,
    /// Experiments of each kind
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    runs: u32,
    /// Outcomes that each arm must have
    #[arg(long, default_value_t = Policy::default().outcomes_min, value_name = "N")]
    outcomes_min: u64,
    /// Conversions that each arm must have, and as many outcomes without one
    #[arg(long, default_value_t = Policy::default().conversions_min, value_name = "N")]
    conversions_min: u64,
    /// Deal units out by the probability to be the best, with this share for each arm at least
    #[arg(long, value_name = "SHARE")]
    bandit: Option<f64>,
    /// Evidence for the control does not end an experiment
    #[arg(long)]
    one_sided: bool,
    /// Where chance begins: the same number makes the same experiments
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Named {
    /// An arm is probably the best
    Thompson,
    /// A confidence sequence leaves out zero
    Anytime,
    /// Both: the default of experiments
    Both,
}

/// What came of both kinds of experiment.
#[derive(Debug, Serialize)]
struct Simulated {
    /// Arms that are the same.
    same: Report,
    /// Treatments that are better.
    better: Report,
}

impl Arguments {
    fn scenario(&self, effect: f64) -> Result<Scenario, Failure> {
        let (threshold, alpha) = (self.threshold, self.alpha);
        for (what, value) in [("--threshold", threshold), ("--alpha", alpha)] {
            if !(value > 0.0 && value < 1.0) {
                let message = format!("{what} is a probability between 0 and 1, not {value}");
                return Err(Failure::new("ab.probability", message));
            }
        }
        let floors = 0.0..=1.0 / self.arms.max(1) as f64;
        if let Some(floor) = self.bandit.filter(|floor| !floors.contains(floor)) {
            let message =
                format!("--bandit is a share of 0 to {:.3} for each, not {floor}", floors.end());
            return Err(Failure::new("ab.floor", message));
        }
        let rule = match self.rule {
            Named::Thompson => Rule::Thompson { threshold },
            Named::Anytime => Rule::Anytime { alpha },
            Named::Both => Rule::Both { threshold, alpha },
        };
        let weights = Weights::even(self.arms)?;
        let mut rates = vec![self.rate + effect; self.arms];
        rates[0] = self.rate;
        let allocation =
            self.bandit.map_or(Allocation::Fixed, |floor| Allocation::Thompson { floor });
        let (outcomes_min, conversions_min) = (self.outcomes_min, self.conversions_min);
        Ok(Scenario {
            rates,
            weights,
            allocation,
            policy: Policy { rule, outcomes_min, conversions_min, ..Policy::default() },
            either_side: !self.one_sided,
            every: self.every,
            most: self.most,
            runs: self.runs,
            seed: self.seed,
        })
    }
}

pub(super) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    let (same, better) = (arguments.scenario(0.0)?, arguments.scenario(arguments.effect)?);
    let bar = if printer.json { ProgressBar::hidden() } else { bar(arguments.runs) };
    let done = |before: u32| {
        let bar = &bar;
        move |runs: u32| bar.set_position(u64::from(before) + u64::from(runs))
    };
    let same = simulate(&same, done(0))?;
    let better = simulate(&better, done(arguments.runs))?;
    bar.finish_and_clear();
    printer.show(&Simulated { same, better }, |it| told(arguments, it))
}

fn bar(runs: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} experiments, {eta} left");
    let bar = ProgressBar::new(2 * u64::from(runs));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn told(arguments: &Arguments, simulated: &Simulated) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |what: &str, report: &Report| {
        let treatments = 1..report.ended_for.len();
        let ((control, _), (treatment, range)) = (report.share([0]), report.share(treatments));
        let range = format!("{} to {}", percent(range.low), percent(range.high));
        let mean = format!("{:.0}", report.outcomes_mean);
        [what.to_owned(), percent(treatment), range, percent(control), mean]
    };
    let better = format!("better by {}", arguments.effect);
    let rows = [row("the same", &simulated.same), row(&better, &simulated.better)];
    let head = [
        "treatments are",
        "a treatment wins",
        "with 99 % confidence",
        "the control wins",
        "outcomes",
    ];
    let (found, range) = simulated.same.decided();
    format!(
        "{}\n\nFalse positives: {} of experiments between arms that are the same ({} to {}) find a winner.\n\n\
         Share of experiments that have found evidence, by outcomes: the same, and better\n{}",
        table(head, rows.into_iter()),
        percent(found),
        percent(range.low),
        percent(range.high),
        plot(arguments.most, simulated)
    )
}

fn plot(most: u64, simulated: &Simulated) -> String {
    let points = |report: &Report| -> Vec<(f32, f32)> {
        let point = |(at, share): &(u64, f64)| (*at as f32, *share as f32);
        std::iter::once((0.0, 0.0)).chain(report.curve.iter().map(point)).collect()
    };
    let (same, better) = (points(&simulated.same), points(&simulated.better));
    let mut chart = Chart::new_with_y_range(PLOT.0, PLOT.1, 0.0, most as f32, 0.0, 1.0);
    let (same, better) = (Shape::Steps(&same), Shape::Steps(&better));
    let chart = chart.lineplot(&same).lineplot(&better);
    chart.axis();
    chart.figures();
    chart.to_string()
}
