//! Packs programs into the archive that the guest unpacks: a ustar file whose members have the programs' names.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tar::{Builder, Header};

use super::Program;
use crate::error::{During, Result};

/// Writes the archive of `programs` to `path`.
pub(crate) fn pack(programs: &[&Program], path: &Path) -> Result<()> {
    let file = File::create(path).during(path.display())?;
    write(programs, file).during(path.display())
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
