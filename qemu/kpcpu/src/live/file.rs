//! The file that QEMU keeps the guest's memory in, mapped, and read while the guest writes to it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

/// Bytes that are read in one step.
const WORD: usize = 8;

/// A memory file. It is never written to, and nothing here makes a reference to what is in it: the guest changes it at any time.
#[derive(Debug)]
pub(super) struct MemoryFile {
    file: File,
    map: MmapRaw,
}

impl MemoryFile {
    /// Opens and maps a file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            let what = "not a file; give QEMU the path of one (mem-path=FILE)";
            return Err(io::Error::other(what));
        }
        let map = MmapOptions::new().map_raw_read_only(&file)?;
        Ok(Self { file, map })
    }

    /// How long the file was when it was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Reads from `offset` on, as far as the file goes. An aligned number of 8 bytes comes whole: as it was before the guest changed it,
    /// or after.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // Whoever makes the file shorter makes the rest of the mapping a fault.
        let length = self.file.metadata()?.len().min(self.bytes());
        let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        let Ok(offset) = usize::try_from(offset) else {
            return Ok(0);
        };
        let mut done = 0;
        while done < n {
            let (at, skip) = ((offset + done) / WORD * WORD, (offset + done) % WORD);
            let word = self.word(at).to_ne_bytes();
            let taken = (WORD - skip).min(n - done);
            buffer[done..done + taken].copy_from_slice(&word[skip..skip + taken]);
            done += taken;
        }
        // What is read after this is not older.
        fence(Ordering::Acquire);
        Ok(n)
    }

    /// Reads the word at `at`, a multiple of [`WORD`] below the length of the file.
    fn word(&self, at: usize) -> u64 {
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
        let words = self.map.as_ptr().cast::<u64>();
        let place = words.wrapping_add(at / WORD);
        // SAFETY: the mapping lives as long as `self`, is whole pages and so whole words, and `at` is inside and aligned; the file
        // was that long a moment ago. Others change it, in another program: only atomic loads touch it here, relaxed ones of 8
        // bytes, which read-only memory allows.
        unsafe { AtomicU64::from_ptr(place.cast_mut()) }.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryFile;
    use std::io::Write;

    #[test]
    fn any_part_of_the_file_and_nothing_behind_it() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let bytes: Vec<u8> = (0..=255).cycle().take(10_001).collect();
        file.write_all(&bytes).expect("written");
        let memory = MemoryFile::open(file.path()).expect("mapped");
        assert_eq!(memory.bytes(), 10_001);
        for (offset, n) in [(0, 1), (3, 9), (7, 64), (8, 8), (9_990, 11), (4_090, 20)] {
            let mut buffer = vec![0; n];
            let from = u64::try_from(offset).expect("small");
            assert_eq!(memory.read(from, &mut buffer).expect("read"), n);
            assert_eq!(buffer, bytes[offset..offset + n]);
        }
        assert_eq!(memory.read(9_999, &mut [0; 8]).expect("read"), 2);
        assert_eq!(memory.read(10_001, &mut [0; 8]).expect("read"), 0);
        assert_eq!(memory.read(u64::MAX, &mut [0; 8]).expect("read"), 0);
        // A file that was made shorter ends where it ends now.
        file.as_file().set_len(5_000).expect("cut");
        assert_eq!(memory.read(4_999, &mut [0; 8]).expect("read"), 1);
        assert_eq!(memory.read(9_000, &mut [0; 8]).expect("read"), 0);
    }

    #[test]
    fn a_directory_is_refused() {
        let error = MemoryFile::open(&std::env::temp_dir()).expect_err("refused");
        assert!(error.to_string().contains("mem-path=FILE"), "{error}");
    }
}
