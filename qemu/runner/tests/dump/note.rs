//! The header travels as a note in a dump, where the machine has QEMU's vmcoreinfo device: no file of the kernel is needed to read it,
//! or a stripped one is enough.

use std::path::{Path, PathBuf};
use std::process::Command;

use pcu9_kpcpu::{Dump, Error, Kpcpu};

/// A copy of the kernel's file without what `arguments` take out.
fn stripped(kernel: &Path, dir: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let ran = Command::new("objcopy")
        .args(arguments)
        .args([kernel, &path])
        .status();
    assert!(
        ran.expect("objcopy (package binutils) is needed for this test")
            .success()
    );
    path
}

/// What a reader finds that needs no symbols.
fn told(kernel: &mut Kpcpu) -> String {
    let packets = kernel.counter("PACKETS").expect("a counter");
    let packets = kernel.counter_u64_percpu(packets).expect("parts");
    kernel.dpcpu_setcpu(1).expect("present");
    let colour = kernel.nlist("COLOUR").expect("described");
    let units: Vec<_> = kernel
        .present()
        .expect("CPUs")
        .into_iter()
        .map(|cpu| kernel.units(cpu))
        .collect();
    let lwps = kernel.lwps().expect("the list");
    assert!(lwps.len() > 3, "{lwps:?}");
    let saved = lwps.iter().find(|lwp| lwp.name.as_deref() == Some("saved"));
    let registers = kernel.fpu(saved.expect("it is there")).expect("readable");
    format!("{packets:?} {colour:?} {units:?} {lwps:?} {registers:?}")
}

#[test]
fn a_dump_is_read_without_the_kernels_file_and_with_a_stripped_one() {
    super::boot(2, |held| {
        let path = super::dump(held);
        let mut whole = Kpcpu::open(held.kernel, &path).expect("with the file");
        let expected = told(&mut whole);
        let notes = Dump::open(&path).expect("a dump");
        let notes = notes.guest_notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(
            (&notes[0].name[..], notes[0].kind, notes[0].desc.len()),
            (&b"pcu9"[..], 2, 384)
        );

        let mut alone = Kpcpu::open_dump(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(told(&mut alone), expected);
        let error = alone
            .nlist("pcu9_header")
            .expect_err("there are no symbols");
        assert!(matches!(error, Error::NoName(_)), "{error}");

        // Without symbols the file's own note names the header; without that the dump's does.
        let plain = stripped(held.kernel, held.dir, "stripped", &["--strip-all"]);
        let bare = ["--strip-all", "--remove-section=.notes"];
        let bare = stripped(held.kernel, held.dir, "bare", &bare);
        let mut kernel = Kpcpu::open(&plain, &path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(told(&mut kernel), expected);
        // That took the build id too, so nothing shows that the file fits.
        let error = Kpcpu::open(&bare, &path).expect_err("no build id");
        assert!(matches!(error, Error::NoBuildId), "{error}");
    });
}
