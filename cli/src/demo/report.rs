//! The closing table: what was claimed, what was seen, whether it held.

use serde::Serialize;

use crate::output::table;

/// One claim and what was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Claim {
    what: String,
    seen: String,
    held: bool,
}

impl Claim {
    pub(crate) fn new(what: impl Into<String>, seen: impl Into<String>, held: bool) -> Self {
        Self { what: what.into(), seen: seen.into(), held }
    }
}

/// All claims.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) claims: Vec<Claim>,
}

impl Report {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let rows = self.claims.iter().map(|claim| {
            let held = if claim.held { "yes" } else { "NO" };
            [claim.what.clone(), claim.seen.clone(), held.to_owned()]
        });
        format!("5. what was claimed\n{}", table(["claim", "seen", "held"], rows))
    }

    /// The first claim that did not hold.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.claims.iter().find(|claim| !claim.held).map(|claim| claim.what.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_claim_breaks_the_report() {
        let good = Claim::new("a", "0", true);
        let bad = Claim::new("b", "1", false);
        assert_eq!(Report { claims: vec![good.clone()] }.broken(), None);
        let report = Report { claims: vec![good, bad] };
        assert_eq!(report.broken(), Some("b"));
        assert!(report.table().contains("NO"));
    }
}
