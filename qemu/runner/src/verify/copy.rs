//! A copy of the checkout that may be broken.

use std::fs;
use std::path::Path;

use crate::error::{During, Result};

/// What is no part of the sources.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// Makes `copy` hold the files of `checkout`, as they are on the disk, and nothing else.
pub(super) fn bring_up_to_date(checkout: &Path, copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy).during(copy.display())?;
    }
    copy_folder(checkout, copy, &LEFT_OUT)
}

fn copy_folder(from: &Path, to: &Path, left_out: &[&str]) -> Result<()> {
    fs::create_dir_all(to).during(to.display())?;
    for entry in fs::read_dir(from).during(from.display())? {
        let entry = entry.during(from.display())?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if left_out.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if from.is_dir() {
            copy_folder(&from, &to, &[])?;
        } else {
            fs::copy(&from, &to).during(from.display())?;
        }
    }
    Ok(())
}
