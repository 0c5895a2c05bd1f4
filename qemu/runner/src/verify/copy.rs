//! A copy of the checkout that may be broken: only what changed is written, so that cargo builds only that anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::error::{During, Result};

/// What is no part of the sources.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// Makes `copy` hold the files of `checkout`, as they are on the disk.
pub(super) fn bring_up_to_date(checkout: &Path, copy: &Path) -> Result<()> {
    let wanted = files(checkout)?;
    fs::create_dir_all(copy).during(copy.display())?;
    for stale in files(copy)?.difference(&wanted) {
        let stale = copy.join(stale);
        fs::remove_file(&stale).during(stale.display())?;
    }
    for file in &wanted {
        let (from, to) = (checkout.join(file), copy.join(file));
        let content = fs::read(&from).during(from.display())?;
        if fs::read(&to).is_ok_and(|old| old == content) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).during(folder.display())?;
        }
        fs::write(&to, content).during(to.display())?;
    }
    Ok(())
}

/// The files below `root`, relative to it.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let is_source = |entry: &walkdir::DirEntry| {
        entry.depth() != 1 || !LEFT_OUT.iter().any(|name| entry.file_name() == *name)
    };
    let mut files = BTreeSet::new();
    for entry in WalkDir::new(root).into_iter().filter_entry(is_source) {
        let entry = entry.during(root.display())?;
        if entry.file_type().is_file() {
            files.extend(entry.path().strip_prefix(root).map(Path::to_owned));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::bring_up_to_date;
    use std::fs;

    #[test]
    fn only_what_changed_is_written_and_what_went_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("src")).expect("a folder");
        fs::create_dir_all(from.join("target")).expect("a folder");
        for file in ["a", "src/b", "src/c", "target/d"] {
            fs::write(from.join(file), file).expect("a file");
        }
        bring_up_to_date(&from, &to).expect("a copy");
        assert!(!to.join("target").exists());
        let written = |file: &str| {
            to.join(file)
                .metadata()
                .and_then(|m| m.modified())
                .expect("a time")
        };
        let before = written("a");

        fs::write(from.join("src/b"), "new").expect("a file");
        fs::remove_file(from.join("src/c")).expect("a file");
        bring_up_to_date(&from, &to).expect("a copy");
        assert_eq!(fs::read(to.join("src/b")).expect("a file"), b"new");
        assert!(!to.join("src/c").exists());
        assert_eq!(
            written("a"),
            before,
            "an untouched file would be built anew"
        );
    }
}
