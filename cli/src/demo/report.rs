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

/// What has to be in the table: a claim that was not checked has not held.
const CLAIMS: [&str; 21] = [
    "refused: unsigned",
    "refused: tampered",
    "refused: behind a symlink",
    "calls served",
    "calls lost",
    "wrong answers",
    "queries wrong",
    "hot reload 1.0.0 -> 1.1.0",
    "answers changed at one instant",
    "statements held to one version",
    "1.2.0 never visible",
    "1.3.0 swapped back by itself",
    "errors callers saw of 1.3.0",
    "rollback to 1.0.0",
    "served by 1.0.0 again",
    "call counter survived every change",
    "text runs in a worker process",
    "a plugin that eats memory",
    "a plugin that hangs",
    "events in the audit log",
    "themis audit verify",
];

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
        format!("11. what was claimed\n{}", table(["claim", "seen", "held"], rows))
    }

    /// The first claim that did not hold, or was not checked.
    pub(crate) fn broken(&self) -> Option<&str> {
        let failed = self.claims.iter().find(|claim| !claim.held).map(|claim| claim.what.as_str());
        let checked = |what: &str| self.claims.iter().any(|claim| claim.what == what);
        failed.or_else(|| CLAIMS.into_iter().find(|what| !checked(what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_or_unchecked_claim_breaks_the_report() {
        let all = |held: bool| CLAIMS.map(|what| Claim::new(what, "0", held)).to_vec();
        assert_eq!(Report { claims: all(true) }.broken(), None);
        let mut one_failed = all(true);
        one_failed[4].held = false;
        let report = Report { claims: one_failed };
        assert_eq!(report.broken(), Some(CLAIMS[4]));
        assert!(report.table().contains("NO"));
        let mut one_missing = all(true);
        one_missing.remove(7);
        assert_eq!(Report { claims: one_missing }.broken(), Some(CLAIMS[7]));
    }
}
