//! Names that cannot stand side by side.

use std::collections::BTreeMap;

/// Why a name cannot stand beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash<'n> {
    /// The same name again.
    Duplicate,
    /// Differs from this one only in case: on some file systems it would replace it.
    Case { other: &'n str },
    /// Would lie inside this one, which is a file.
    Inside { file: &'n str },
}

/// The first item whose name clashes with another's.
pub(super) fn first_clash<'i, 'n, T>(
    items: &'i [T],
    name: impl Fn(&T) -> &'n str,
) -> Option<(&'i T, Clash<'n>)> {
    let mut files: BTreeMap<String, &'n str> = BTreeMap::new();
    for item in items {
        let name = name(item);
        // As the manifest compares the paths it lists.
        match files.insert(name.to_lowercase(), name) {
            Some(other) if other == name => return Some((item, Clash::Duplicate)),
            Some(other) => return Some((item, Clash::Case { other })),
            None => {}
        }
    }
    items.iter().find_map(|item| {
        let folded = name(item).to_lowercase();
        let mut above = folded.match_indices('/').filter_map(|(at, _)| folded.get(..at));
        let file = above.find_map(|above| files.get(above).copied())?;
        Some((item, Clash::Inside { file }))
    })
}
