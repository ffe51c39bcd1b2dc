//! What bodies make the meter add to a module: types of blocks, and globals that hold locals while more fuel is asked for.

use std::collections::HashMap;

use wasm_encoder::reencode::Reencode;
use wasm_encoder::{BlockType, ValType};

use super::MeterError;
use super::rewrite::Layout;
use super::survey::{Signature, Survey};

/// Types and globals to be added.
#[derive(Debug)]
pub(crate) struct Added {
    /// Where the meter's own things stand.
    pub(crate) layout: Layout,
    /// Parameters and results of the types, in order. The first is that of the import, `(i64) -> i64`.
    pub(crate) types: Vec<(Vec<ValType>, Vec<ValType>)>,
    /// Types of the globals, in order, after the fuel.
    pub(crate) slots: Vec<ValType>,
    /// Number of types in the module as given.
    given: u32,
    /// The types without parameters, by their results.
    known: HashMap<Vec<ValType>, u32>,
}

impl Added {
    /// Nothing but the type of the import yet.
    ///
    /// # Errors
    /// [`MeterError::Encoding`] for a type that cannot be written.
    pub(crate) fn to(survey: &Survey<'_>, mut layout: Layout) -> Result<Self, MeterError> {
        let given = u32::try_from(survey.types.len()).unwrap_or(u32::MAX);
        let mut known = HashMap::new();
        for (index, ty) in (0..).zip(&survey.types) {
            if ty.parameters.is_empty() {
                let results = ty.results.iter().map(|ty| layout.val_type(*ty));
                known.insert(results.collect::<Result<_, _>>()?, index);
            }
        }
        let types = vec![(vec![ValType::I64], vec![ValType::I64])];
        Ok(Self { layout, types, slots: vec![], given, known })
    }

    /// The type of a block that takes nothing and yields a function's results.
    pub(crate) fn block(&mut self, signature: &Signature) -> Result<BlockType, MeterError> {
        let results = signature.results.iter().map(|ty| self.layout.val_type(*ty));
        let results = results.collect::<Result<Vec<_>, _>>()?;
        match *results {
            [] => return Ok(BlockType::Empty),
            [only] => return Ok(BlockType::Result(only)),
            [..] => {}
        }
        if let Some(index) = self.known.get(&results) {
            return Ok(BlockType::FunctionType(*index));
        }
        let count = u32::try_from(self.types.len()).unwrap_or(u32::MAX);
        let index = self.given.saturating_add(count);
        self.types.push((vec![], results.clone()));
        self.known.insert(results, index);
        Ok(BlockType::FunctionType(index))
    }

    /// A global for each of some values, by their types, which must be sorted.
    pub(crate) fn slots(&mut self, types: impl Iterator<Item = ValType>) -> Vec<u32> {
        let mut next = 0;
        let mut last = None;
        let mut found = vec![];
        for ty in types {
            // The first slot of another type may stand before the last of this.
            let from = if last == Some(ty) { next } else { 0 };
            let known = self.slots.iter().skip(from).position(|slot| *slot == ty);
            let place = known.map_or(self.slots.len(), |known| from.saturating_add(known));
            if known.is_none() {
                self.slots.push(ty);
            }
            (next, last) = (place.saturating_add(1), Some(ty));
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            found.push(self.layout.fuel.saturating_add(1).saturating_add(place));
        }
        found
    }
}
