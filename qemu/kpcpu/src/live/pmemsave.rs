//! Memory that QEMU copies to a file: a page at a time, since a round trip takes QEMU about as long for a word as for a page.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;

use serde_json::json;
use tempfile::TempDir;

use crate::qmp::Qmp;

const PAGE: u64 = 1 << 12;

/// What QEMU copied.
#[derive(Debug)]
pub(super) struct Pmemsave {
    /// Where QEMU writes to.
    dir: TempDir,
    /// The pages that were read since [`forget`](Self::forget).
    pages: RefCell<HashMap<u64, Vec<u8>>>,
}

impl Pmemsave {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
            pages: RefCell::default(),
        })
    }

    pub(super) fn forget(&self) {
        self.pages.borrow_mut().clear();
    }

    /// Reads from `address` on; there is memory up to `end`.
    pub(super) fn read(
        &self,
        qmp: &RefCell<Qmp>,
        address: u64,
        end: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let skip = address % PAGE;
        let page = address - skip;
        let bytes = PAGE.min(end - page);
        let mut pages = self.pages.borrow_mut();
        let kept = match pages.entry(page) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => place.insert(self.copy(&mut qmp.borrow_mut(), page, bytes)?),
        };
        let rest = usize::try_from(skip).ok().and_then(|skip| kept.get(skip..));
        let rest = rest.unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn copy(&self, qmp: &mut Qmp, address: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let path = self.dir.path().join("memory");
        let arguments = json!({ "val": address, "size": bytes, "filename": path });
        let saved = qmp.execute("pmemsave", &arguments);
        saved.map_err(io::Error::other)?;
        fs::read(&path)
    }
}
