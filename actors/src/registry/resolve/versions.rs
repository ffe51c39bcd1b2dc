//! A set of one plugin's releases, exact for the finite list that the index knows: one bit per release.

use std::fmt;

use pubgrub::VersionSet;

const BITS: u32 = u64::BITS;

/// Releases of one plugin, by their place in its list of versions.
///
/// The solver wants complements that are exact and equal sets that compare equal, and it does not know which places
/// exist: all places past the last word are in the set or outside it together. Nearly every plugin has at most 64
/// releases, and its sets need no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versions {
    first: u64,
    /// Places from 64 on; its last word differs from `beyond`, so that equal sets are written alike.
    rest: Vec<u64>,
    /// All ones if the places past the last word are in the set, else zero.
    beyond: u64,
}

impl Versions {
    /// The set with the releases at `places`, in any order.
    pub fn of(places: impl IntoIterator<Item = u32>) -> Self {
        let mut set = Self::empty();
        for place in places {
            let bit = 1 << (place % BITS);
            match (place / BITS) as usize {
                0 => set.first |= bit,
                word => {
                    if set.rest.len() < word {
                        set.rest.resize(word, 0);
                    }
                    if let Some(last) = set.rest.get_mut(word - 1) {
                        *last |= bit;
                    }
                }
            }
        }
        set
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.is_empty() && self.beyond == 0
    }

    /// How many releases are in it; those past the last word are not counted.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.words().map(u64::count_ones).sum()
    }

    /// The places in it, lowest version first; those past the last word are left out.
    pub fn places(&self) -> impl DoubleEndedIterator<Item = u32> {
        let end = u32::try_from(self.rest.len() + 1).unwrap_or(u32::MAX).saturating_mul(BITS);
        (0..end).filter(|place| self.contains(place))
    }

    /// The highest version in it.
    #[must_use]
    pub fn highest(&self) -> Option<u32> {
        self.places().next_back()
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Word by word, `combine` applied to both sets.
    fn with(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let beyond = combine(self.beyond, other.beyond);
        let words = self.rest.len().max(other.rest.len());
        let mut rest = Vec::with_capacity(words);
        for word in 0..words {
            let mine = self.rest.get(word).unwrap_or(&self.beyond);
            let theirs = other.rest.get(word).unwrap_or(&other.beyond);
            rest.push(combine(*mine, *theirs));
        }
        while rest.last() == Some(&beyond) {
            rest.pop();
        }
        Self { first: combine(self.first, other.first), rest, beyond }
    }

    /// Whether `holds` for every word of both sets.
    fn all(&self, other: &Self, holds: impl Fn(u64, u64) -> bool) -> bool {
        let words = self.rest.len().max(other.rest.len());
        let rest = (0..words).all(|word| {
            let mine = self.rest.get(word).unwrap_or(&self.beyond);
            let theirs = other.rest.get(word).unwrap_or(&other.beyond);
            holds(*mine, *theirs)
        });
        holds(self.first, other.first) && holds(self.beyond, other.beyond) && rest
    }
}

impl VersionSet for Versions {
    type V = u32;

    fn empty() -> Self {
        Self { first: 0, rest: Vec::new(), beyond: 0 }
    }

    fn full() -> Self {
        Self { first: u64::MAX, rest: Vec::new(), beyond: u64::MAX }
    }

    fn singleton(place: u32) -> Self {
        Self::of([place])
    }

    fn complement(&self) -> Self {
        Self {
            first: !self.first,
            rest: self.rest.iter().map(|word| !word).collect(),
            beyond: !self.beyond,
        }
    }

    fn intersection(&self, other: &Self) -> Self {
        self.with(other, |mine, theirs| mine & theirs)
    }

    fn union(&self, other: &Self) -> Self {
        self.with(other, |mine, theirs| mine | theirs)
    }

    fn contains(&self, place: &u32) -> bool {
        let word = match (place / BITS) as usize {
            0 => &self.first,
            word => self.rest.get(word - 1).unwrap_or(&self.beyond),
        };
        word & (1 << (place % BITS)) != 0
    }

    fn is_disjoint(&self, other: &Self) -> bool {
        self.all(other, |mine, theirs| mine & theirs == 0)
    }

    fn subset_of(&self, other: &Self) -> bool {
        self.all(other, |mine, theirs| mine & !theirs == 0)
    }
}

/// For the solver's own log.
impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.places().map(|place| place.to_string()).collect();
        write!(f, "{{{}}}", places.join(", "))?;
        if self.beyond == 0 { Ok(()) } else { f.write_str(" and beyond") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Places and whether the set is turned inside out.
    fn set() -> impl Strategy<Value = (BTreeSet<u32>, bool)> {
        let place = prop_oneof![0..8_u32, 60..70_u32, 120..200_u32];
        (prop::collection::btree_set(place, 0..6), any::<bool>())
    }

    fn built((places, inside_out): &(BTreeSet<u32>, bool)) -> Versions {
        let set = Versions::of(places.iter().copied());
        if *inside_out { set.complement() } else { set }
    }

    fn holds((places, inside_out): &(BTreeSet<u32>, bool), place: u32) -> bool {
        places.contains(&place) != *inside_out
    }

    proptest! {
        #[test]
        fn sets_do_what_sets_do(a in set(), b in set()) {
            let (left, right) = (built(&a), built(&b));
            let (both, either) = (left.intersection(&right), left.union(&right));
            // 300 stands for all places past the last word.
            for place in (0..210).chain([300]) {
                let (in_a, in_b) = (holds(&a, place), holds(&b, place));
                prop_assert_eq!(left.contains(&place), in_a);
                prop_assert_eq!(both.contains(&place), in_a && in_b);
                prop_assert_eq!(either.contains(&place), in_a || in_b);
            }
            prop_assert_eq!(&left.complement().complement(), &left);
            prop_assert_eq!(left.is_disjoint(&right), both == Versions::empty());
            prop_assert_eq!(left.subset_of(&right), both == left);
            let by_the_book = left.complement().intersection(&right.complement()).complement();
            prop_assert_eq!(either, by_the_book);
            prop_assert_eq!(left == right, (0..300).all(|at| holds(&a, at) == holds(&b, at)));
        }

        #[test]
        fn places_come_back_in_order(a in prop::collection::btree_set(0..300_u32, 0..9)) {
            let set = Versions::of(a.iter().copied());
            prop_assert_eq!(set.places().collect::<Vec<_>>(), a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.highest(), a.last().copied());
            prop_assert_eq!(set.len() as usize, a.len());
            prop_assert_eq!(set.is_empty(), a.is_empty());
        }
    }
}
