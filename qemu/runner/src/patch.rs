//! Patches that are kept in the tree, each with a few words in front.

use diffy::Patch;

use crate::error::{During, Error, Result};

/// Applies the patch `patch`, the file `name`, to `source`, which `to` names in what is said when it does not apply.
pub(crate) fn apply(patch: &str, source: &str, name: &str, to: &str) -> Result<String> {
    let patch = Patch::from_str(patch).during(name)?;
    if patch.hunks().is_empty() {
        return Err(Error::failed(format!("{name} changes nothing")));
    }
    diffy::apply(source, &patch).map_err(|error| {
        Error::failed(format!(
            "{name} no longer applies to {to} ({error}): put the change into today's code and make the patch anew"
        ))
    })
}
