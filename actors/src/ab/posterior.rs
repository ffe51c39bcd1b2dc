//! How probable it is that one arm is better than the others: by quadrature, with nothing drawn at random.
//!
//! What is believed of an arm's rate after its outcomes is a Beta distribution; of a mean, a normal one. Each is tabled once
//! over the range that matters: density by formula, distribution by a corrected trapezoidal rule, both on the scale of the
//! distribution (for Beta the logit, on which it is smooth up to its ends). Then whatever is asked of several arms is one
//! pass over the cells of all tables with two Gauss points each. Normalising needs no gamma function, so shapes up to 10⁸
//! and more are as good as small ones.
//!
//! Measured against exact values: better than 10⁻⁶ for shapes from 1 to 10⁵.

use super::moments::Moments;

/// Width of a cell, in standard deviations at the peak.
const CELL: f64 = 0.12;
/// Most cells of a table: distributions that fall off slowly to one side need more than others.
const CELLS_MAX: usize = 2_048;
/// How far down the density is followed, in nats: e⁻³⁶ is below what a sum of doubles can tell.
const DEPTH: f64 = 36.0;
/// Halvings of a bracket: to a millionth of the width.
const HALVINGS: usize = 24;

/// What is believed of one arm.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    shape: Shape,
    low: f64,
    step: f64,
    /// What the density has to be divided by.
    whole: f64,
    /// The distribution function at each node.
    below: Vec<f64>,
    /// The density at each node.
    density: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    /// Of a rate, on the logit scale.
    Beta { a: f64, b: f64, peak: f64 },
    /// Of a mean.
    Normal { mean: f64, sd: f64 },
}

impl Shape {
    /// The logarithm of the density, less what it is at the peak, and its slope.
    fn log_density(&self, at: f64) -> (f64, f64) {
        match *self {
            Self::Beta { a, b, peak } => {
                let log = |t: f64| a * t - (a + b) * (t.max(0.0) + (-t.abs()).exp().ln_1p());
                (log(at) - log(peak), a - (a + b) * logistic(at))
            }
            Self::Normal { mean, sd } => {
                let z = (at - mean) / sd;
                (-0.5 * z * z, -z / sd)
            }
        }
    }

    fn peak(&self) -> f64 {
        match *self {
            Self::Beta { peak, .. } => peak,
            Self::Normal { mean, .. } => mean,
        }
    }

    fn width(&self) -> f64 {
        match *self {
            Self::Beta { a, b, .. } => ((a + b) / (a * b)).sqrt(),
            Self::Normal { sd, .. } => sd,
        }
    }

    /// What a place on its scale stands for.
    fn value(&self, at: f64) -> f64 {
        match self {
            Self::Beta { .. } => logistic(at),
            Self::Normal { .. } => at,
        }
    }

    /// The place of a value on its scale.
    fn place(&self, value: f64) -> f64 {
        match self {
            Self::Beta { .. } => (value / (1.0 - value)).ln(),
            Self::Normal { .. } => value,
        }
    }

    /// Where the density has fallen by [`DEPTH`], to one side.
    fn end(&self, side: f64) -> f64 {
        let fallen = |far: f64| self.log_density(self.peak() + side * far).0 < -DEPTH;
        let mut far = 8.0 * self.width();
        while !fallen(far) {
            far *= 2.0;
        }
        let mut near = 0.0;
        for _ in 0..HALVINGS {
            let middle = 0.5 * (near + far);
            if fallen(middle) { far = middle } else { near = middle }
        }
        self.peak() + side * far
    }
}

fn logistic(at: f64) -> f64 {
    if at >= 0.0 { 1.0 / (1.0 + (-at).exp()) } else { at.exp() / (1.0 + at.exp()) }
}

impl Posterior {
    /// Of a rate, after a uniform prior.
    #[must_use]
    pub fn of_rate(successes: u64, failures: u64) -> Self {
        Self::beta(successes as f64 + 1.0, failures as f64 + 1.0)
    }

    /// A Beta distribution; shapes from 0.5 on.
    #[must_use]
    pub fn beta(a: f64, b: f64) -> Self {
        let (a, b) = (a.max(0.5), b.max(0.5));
        Self::table(Shape::Beta { a, b, peak: (a / b).ln() })
    }

    /// Of a mean. `None` while there are too few outcomes, or they do not differ: then nothing is known of the scatter.
    #[must_use]
    pub fn of_mean(moments: &Moments) -> Option<Self> {
        let sd = moments.variance_of_mean().sqrt();
        (sd > 0.0 && sd.is_finite()).then(|| Self::normal(moments.mean(), sd))
    }

    /// A normal distribution.
    #[must_use]
    pub fn normal(mean: f64, sd: f64) -> Self {
        Self::table(Shape::Normal { mean, sd })
    }

    fn table(shape: Shape) -> Self {
        let (low, high) = (shape.end(-1.0), shape.end(1.0));
        // At most CELLS_MAX, and none of them empty.
        let cells = ((high - low) / (CELL * shape.width())).ceil().clamp(1.0, CELLS_MAX as f64);
        let (step, cells) = ((high - low) / cells, cells as usize);
        let node = |cell: usize| {
            let (log, slope) = shape.log_density(low + step * cell as f64);
            (log.exp(), slope)
        };
        let (mut below, mut density) = (vec![0.0], vec![node(0).0]);
        let (mut sum, mut before) = (0.0, node(0));
        for cell in 1..=cells {
            let here = node(cell);
            // The trapezoidal rule with its first correction (Euler, Maclaurin): the slopes are known.
            let slopes = here.0 * here.1 - before.0 * before.1;
            sum += step * (0.5 * (before.0 + here.0) - step * slopes / 12.0);
            below.push(sum);
            density.push(here.0);
            before = here;
        }
        below.iter_mut().for_each(|it| *it /= sum);
        density.iter_mut().for_each(|it| *it /= sum);
        Self { shape, low, step, whole: sum, below, density }
    }

    fn cells(&self) -> usize {
        self.below.len() - 1
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.shape {
            Shape::Beta { a, b, .. } => a / (a + b),
            Shape::Normal { mean, .. } => mean,
        }
    }

    /// The probability of a value at or below this one.
    #[must_use]
    pub fn cdf(&self, value: f64) -> f64 {
        self.below(self.shape.place(value))
    }

    /// The value that is not exceeded with this probability.
    #[must_use]
    pub fn quantile(&self, probability: f64) -> f64 {
        let cell = self.below.partition_point(|it| *it < probability).clamp(1, self.cells());
        let (mut low, mut high) = ((cell - 1) as f64, cell as f64);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if self.below(self.low + self.step * middle) < probability {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.shape.value(self.low + self.step * 0.5 * (low + high))
    }

    /// The range that leaves out half of `alpha` on each side.
    #[must_use]
    pub fn credible(&self, alpha: f64) -> super::sequence::Interval {
        let (low, high) = (self.quantile(0.5 * alpha), self.quantile(1.0 - 0.5 * alpha));
        super::sequence::Interval { low, high }
    }

    /// The distribution function on its scale: a cubic through the nodes with the right slopes.
    fn below(&self, at: f64) -> f64 {
        let place = (at - self.low) / self.step;
        if place <= 0.0 {
            return 0.0;
        }
        if place >= self.cells() as f64 {
            return 1.0;
        }
        // Between 0 and the number of cells.
        let cell = place as usize;
        let (Some([f0, f1]), Some([d0, d1])) = (
            self.below.get(cell..cell + 2).and_then(|it| <&[f64; 2]>::try_from(it).ok()),
            self.density.get(cell..cell + 2).and_then(|it| <&[f64; 2]>::try_from(it).ok()),
        ) else {
            return 1.0;
        };
        let t = place - cell as f64;
        let (rise, d0, d1) = (f1 - f0, d0 * self.step, d1 * self.step);
        f0 + t * (d0 + t * (3.0 * rise - 2.0 * d0 - d1 + t * (d0 + d1 - 2.0 * rise)))
    }

    fn density(&self, at: f64) -> f64 {
        if at <= self.low || at >= self.low + self.step * self.cells() as f64 {
            return 0.0;
        }
        self.shape.log_density(at).0.exp() / self.whole
    }
}

/// What several arms look like beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The probability of each to be the best.
    pub best: Vec<f64>,
    /// How much worse than the best each is expected to be: what choosing it would cost.
    pub loss: Vec<f64>,
}

/// Compares arms whose posteriors are of one kind: all rates or all means. More is better.
#[must_use]
pub fn compare(arms: &[Posterior]) -> Comparison {
    let mut edges: Vec<f64> = arms
        .iter()
        .flat_map(|arm| (0..=arm.cells()).map(|cell| arm.low + arm.step * cell as f64))
        .collect();
    edges.sort_by(f64::total_cmp);
    let (mut best, mut greatest) = (vec![0.0; arms.len()], 0.0);
    let (mut below, mut density) = (vec![0.0; arms.len()], vec![0.0; arms.len()]);
    for pair in edges.windows(2) {
        let (middle, half) = (0.5 * (pair[0] + pair[1]), 0.5 * (pair[1] - pair[0]));
        if half <= 0.0 {
            continue;
        }
        for point in [-half / 3_f64.sqrt(), half / 3_f64.sqrt()] {
            let at = middle + point;
            for (index, arm) in arms.iter().enumerate() {
                (below[index], density[index]) = (arm.below(at), arm.density(at));
            }
            let value = arms.first().map_or(0.0, |arm| arm.shape.value(at));
            for index in 0..arms.len() {
                let others = below.iter().enumerate().filter(|(other, _)| *other != index);
                let wins = half * density[index] * others.map(|(_, below)| below).product::<f64>();
                best[index] += wins;
                greatest += wins * value;
            }
        }
    }
    // They are the chances of all that can happen.
    let whole: f64 = best.iter().sum();
    best.iter_mut().for_each(|it| *it /= whole);
    let loss = arms.iter().map(|arm| (greatest / whole - arm.mean()).max(0.0)).collect();
    Comparison { best, loss }
}

#[cfg(test)]
mod tests;
