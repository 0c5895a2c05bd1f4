//! The CD that GRUB boots the kernel from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, pod};

use crate::error::{During, Error, Result};
use crate::install::last_lines;
use crate::place;
use crate::process::capture;

/// The image's name in the directory of a run.
pub(super) const ISO: &str = "boot.iso";

const MKRESCUE: &str = "grub-mkrescue";
const XORRISO: &str = "xorriso";
/// GRUB for a BIOS.
const PLATFORM: &str = "/usr/lib/grub/i386-pc";
/// A magic number of the Multiboot2 Specification, section "The layout of Multiboot2 header"; the header is in the first 32 KiB.
const MULTIBOOT2_HEADER: u32 = 0xe852_50d6;
const MULTIBOOT2_SEARCH: usize = 32768;

/// The programs that make the image.
#[derive(Debug)]
pub(super) struct GrubTools {
    mkrescue: PathBuf,
}

/// What is missing, each with the package that has it.
pub(super) fn missing() -> Vec<(String, Vec<&'static str>)> {
    let mut missing = Vec::new();
    for (program, package) in [(MKRESCUE, "grub-common"), (XORRISO, "xorriso")] {
        if place::on_path(program).is_none() {
            missing.push((program.to_owned(), vec![package]));
        }
    }
    if !Path::new(PLATFORM).is_dir() {
        missing.push((PLATFORM.to_owned(), vec!["grub-pc-bin"]));
    }
    missing
}

impl GrubTools {
    /// Looks for the programs; an error is the name of the first that is missing.
    pub(super) fn find() -> Result<Self, &'static str> {
        let mkrescue = place::on_path(MKRESCUE).ok_or(MKRESCUE)?;
        place::on_path(XORRISO).ok_or(XORRISO)?;
        if Path::new(PLATFORM).is_dir() {
            Ok(Self { mkrescue })
        } else {
            Err(PLATFORM)
        }
    }

    /// Makes the image in `dir`: it boots `kernel` with `command_line`, and `module` beside it, without a menu.
    pub(super) fn write_iso(
        &self,
        dir: &Path,
        kernel: &Path,
        module: Option<&Path>,
        command_line: &str,
    ) -> Result<()> {
        let root = dir.join("cd");
        let grub = root.join("boot/grub");
        fs::create_dir_all(&grub).during(grub.display())?;
        let image = fs::read(kernel).during(kernel.display())?;
        let image = for_grub(image).map_err(|why| {
            Error::unusable(format!(
                "{}: {why}: it cannot boot on Bochs",
                kernel.display()
            ))
        })?;
        fs::write(root.join("boot/kernel"), image).during(root.display())?;
        if let Some(module) = module {
            fs::copy(module, root.join("boot/module")).during(module.display())?;
        }
        let script = script(command_line, module.is_some());
        fs::write(grub.join("grub.cfg"), script).during(grub.display())?;

        let mut command = Command::new(&self.mkrescue);
        command.args(["-d", PLATFORM]);
        command.args(["--fonts=", "--locales=", "--themes="]);
        command.args(["--install-modules=multiboot2", "-o"]);
        command.arg(dir.join(ISO)).arg(&root);
        let made = capture(&mut command, Duration::from_mins(1), 1 << 20).during(MKRESCUE)?;
        if made.ended.is_success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&made.output);
        for line in last_lines(&said, 15) {
            eprintln!("    {line}");
        }
        Err(Error::failed(format!(
            "{MKRESCUE} made no boot image ({})",
            made.ended
        )))
    }
}

/// GRUB's script: each word of the command line in quotes, whatever is in it.
fn script(command_line: &str, has_module: bool) -> String {
    let quoted = |word: &str| format!(" '{}'", word.replace('\'', "'\\''"));
    let words: String = command_line.split_whitespace().map(quoted).collect();
    let module = if has_module {
        "module2 /boot/module\n"
    } else {
        ""
    };
    format!("set timeout=0\nmultiboot2 /boot/kernel{words}\n{module}boot\n")
}

/// Takes the symbols and the debug information off a kernel: GRUB would load them too, through an emulated disk.
fn for_grub(mut image: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    let header = image.get(..MULTIBOOT2_SEARCH.min(image.len()));
    let (words, _) = header.unwrap_or_default().as_chunks::<8>();
    if !words
        .iter()
        .any(|word| word[..4] == MULTIBOOT2_HEADER.to_le_bytes())
    {
        return Err("no multiboot2 header");
    }
    let end = last_loaded_byte(&image).ok_or("no ELF file of 64 bits")?;
    image.truncate(end);
    let (header, _) =
        pod::from_bytes_mut::<FileHeader64<Endianness>>(&mut image).map_err(|()| "too short")?;
    header.e_shoff.set(Endianness::Little, 0);
    header.e_shnum.set(Endianness::Little, 0);
    header.e_shstrndx.set(Endianness::Little, 0);
    Ok(image)
}

/// Where the last segment ends that a loader reads.
fn last_loaded_byte(image: &[u8]) -> Option<usize> {
    let header = FileHeader64::<Endianness>::parse(image).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, image).ok()?;
    let ends = segments.iter().map(|segment| {
        let (offset, size) = segment.file_range(endian);
        offset.checked_add(size)
    });
    let end = ends.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
    let end = usize::try_from(end).ok()?;
    (end >= size_of::<FileHeader64<Endianness>>() && end <= image.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::{for_grub, script};

    #[test]
    fn the_script_boots_at_once_and_quotes_every_word() {
        assert_eq!(
            script("cpus=2 case=it's  leak=domain", false),
            "set timeout=0\nmultiboot2 /boot/kernel 'cpus=2' 'case=it'\\''s' 'leak=domain'\nboot\n"
        );
        assert!(script("", true).contains("\nmodule2 /boot/module\nboot\n"));
    }

    #[test]
    fn what_grub_cannot_boot_is_told() {
        assert_eq!(for_grub(Vec::new()), Err("no multiboot2 header"));
        assert_eq!(for_grub(vec![0x7f; 100_000]), Err("no multiboot2 header"));
        let mut image = vec![0; 4096];
        image[64..68].copy_from_slice(&[0xd6, 0x50, 0x52, 0xe8]);
        assert_eq!(for_grub(image), Err("no ELF file of 64 bits"));
    }
}
