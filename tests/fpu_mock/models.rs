//! The processors that the tests run on: each model, and each of them with one save instruction less at a time.

use std::sync::OnceLock;

use pcu9_mock::{
    EAX_XSAVEC, EAX_XSAVEOPT, EAX_XSAVES, ECX_AVX, ECX_XSAVE, HeaderCheck, Model,
    ModifiedOptimisation, models,
};

/// A processor, and the save instructions that its CPUID shows.
pub(crate) fn with_extensions(model: &'static Model, extensions: u32) -> &'static Model {
    let leaf_7 = if model.leaf_1_ecx & ECX_XSAVE == 0 {
        [0; 3]
    } else {
        model.leaf_7
    };
    Box::leak(Box::new(Model {
        name: Box::leak(format!("{} with {extensions:#x}", model.name).into_boxed_str()),
        extensions,
        leaf_7,
        ..*model
    }))
}

/// The same processor, but for a restore that looks at all reserved bytes of a header.
pub(crate) fn strict(model: &'static Model) -> &'static Model {
    Box::leak(Box::new(Model {
        header_check: HeaderCheck::Bytes8To63,
        ..*model
    }))
}

/// Every model with all its save instructions, without XSAVES, without XSAVEC too, without XSAVEOPT too, without XSAVE.
pub(crate) fn all() -> &'static [&'static Model] {
    static ALL: OnceLock<Vec<&'static Model>> = OnceLock::new();
    ALL.get_or_init(|| models::ALL.into_iter().flat_map(variants).collect())
}

fn variants(model: &'static Model) -> Vec<&'static Model> {
    let mut variants = vec![model];
    let mut extensions = model.extensions;
    for less in [EAX_XSAVES, EAX_XSAVEC, EAX_XSAVEOPT] {
        if extensions & less != 0 {
            extensions &= !less;
            variants.push(with_extensions(model, extensions));
        }
    }
    if model.has_xsave() && extensions != model.extensions {
        variants.push(without_xsave(model));
    }
    variants
}

fn without_xsave(model: &'static Model) -> &'static Model {
    Box::leak(Box::new(Model {
        name: Box::leak(format!("{} without xsave", model.name).into_boxed_str()),
        leaf_1_ecx: model.leaf_1_ecx & !(ECX_XSAVE | ECX_AVX),
        leaf_7: [0; 3],
        max_leaf: 7,
        extensions: 0,
        components: &[],
        modified_optimisation: ModifiedOptimisation::Absent,
        ..*model
    }))
}
