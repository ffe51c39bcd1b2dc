//! A mapped, verified file: entries that were checked, and the evidence for them.

use std::sync::Arc;

use themis_messages::instance::{Concurrency, ImageEvidence};
use themis_plugin::abi;

/// The entries every plugin has, read once and checked to lie inside the image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entries {
    pub(crate) init: abi::InitFn,
    pub(crate) call: abi::CallFn,
    pub(crate) health: Option<abi::PlainFn>,
    pub(crate) save_state: Option<abi::SaveStateFn>,
    pub(crate) reload: Option<abi::ReloadFn>,
    pub(crate) shutdown: abi::PlainFn,
}

/// What is mapped for one digest, for good.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) entries: Entries,
    pub(super) concurrency: Concurrency,
    /// Where the descriptor lies: no two images share it.
    pub(super) address: usize,
    /// With `reused` false.
    pub(super) evidence: ImageEvidence,
}

/// An image as one load sees it: instances are made from it with [`Image::init`].
#[derive(Debug)]
pub struct Image {
    pub(super) mapped: Arc<Mapped>,
    evidence: ImageEvidence,
}

impl Image {
    pub(super) fn new(mapped: Arc<Mapped>, reused: bool) -> Arc<Self> {
        let evidence = ImageEvidence { reused, ..mapped.evidence.clone() };
        Arc::new(Self { mapped, evidence })
    }

    /// What is mapped, for receipts.
    #[must_use]
    pub fn evidence(&self) -> &ImageEvidence {
        &self.evidence
    }
}
