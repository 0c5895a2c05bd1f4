//! Packs programs into the archive that the guest unpacks: a ustar file whose members have the programs' names.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tar::{Builder, Header};

use super::Program;
use crate::error::{During, Error, Result};
use crate::guest;
use crate::place;

/// An archive for the guest; its file goes when this does.
#[derive(Debug)]
pub(crate) struct Archive(PathBuf);

impl Archive {
    /// Packs programs.
    pub(crate) fn of(programs: &[&Program]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = place::target("demo");
        fs::create_dir_all(&dir).during(dir.display())?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("programs-{}-{number}.tar", std::process::id()));
        let file = File::create(&path).during(path.display())?;
        write(programs, file).during(path.display())?;
        Ok(Self(path))
    }

    /// Builds and packs the project's own programs, if the kernel of this name is one that runs them.
    pub(crate) fn for_kernel(name: &str) -> Result<Option<Self>> {
        if !guest::runs_programs(name) {
            return Ok(None);
        }
        let mut files = super::build()?;
        if guest::runs_c_programs(name) {
            files.extend(super::musl::build()?);
        }
        let (programs, rejected) = super::read(&files);
        if let Some(rejected) = rejected.into_iter().next() {
            return Err(Error::failed(rejected.reason));
        }
        Self::of(&programs.iter().collect::<Vec<_>>()).map(Some)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What cannot be removed will be overwritten some day.
        let _ = fs::remove_file(&self.0);
    }
}

fn write(programs: &[&Program], out: impl Write) -> std::io::Result<()> {
    let mut archive = Builder::new(out);
    for program in programs {
        let mut header = Header::new_ustar();
        header.set_size(program.image.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(0);
        archive.append_data(&mut header, &program.name, program.image.as_slice())?;
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::{Program, write};

    #[test]
    fn the_archive_has_each_program_under_its_name() {
        let program = |name: &str, image: &[u8]| Program {
            name: name.into(),
            path: name.into(),
            image: image.to_vec(),
            needs: vec![],
        };
        let programs = [program("a", b"first"), program("b~2", &[7; 1000])];
        let mut bytes = Vec::new();
        write(&programs.iter().collect::<Vec<_>>(), &mut bytes).expect("it packs");
        assert_eq!(&bytes[257..262], b"ustar");
        assert_eq!(bytes.len() % 512, 0);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = archive
            .entries()
            .expect("an archive")
            .map(|entry| {
                let entry = entry.expect("a member");
                entry.path().expect("a name").to_string_lossy().into_owned()
            })
            .collect();
        assert_eq!(names, ["a", "b~2"]);
    }
}
