//! Everything that can be wrong with a kernel and its image: each is an error that says what was looked for, and where.

#![cfg(not(target_os = "none"))]

mod image;

use image::{COLOUR, GROUPS, HANDLE, HEADER, Image, KERNEL_BASE, LIST, LWP_BYTES, LWPS, Options};
use image::{STRIDE, TEMPLATE, kernel_file};
use pcu9_kpcpu::{Dump, Kpcpu, Torn};

fn image() -> Image {
    Image::new(Options::default())
}

/// Opens a changed image and returns what is said of it.
fn refused(change: impl FnOnce(&mut Image)) -> String {
    let mut image = image();
    change(&mut image);
    image.open().expect_err("it is damaged").to_string()
}

/// Opens a changed image, which is allowed, and asks.
fn asked<T: std::fmt::Debug>(
    change: impl FnOnce(&mut Image),
    ask: impl FnOnce(&mut Kpcpu) -> pcu9_kpcpu::Result<T>,
) -> String {
    let mut image = image();
    change(&mut image);
    let mut kernel = image.open().unwrap_or_else(|error| panic!("{error}"));
    ask(&mut kernel).expect_err("it is damaged").to_string()
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn no_file_a_text_file_and_an_empty_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let (good, text, empty) = (
        dir.path().join("good"),
        dir.path().join("text"),
        dir.path().join("empty"),
    );
    std::fs::write(&good, image().kernel).expect("written");
    std::fs::write(&text, "no ELF at all").expect("written");
    std::fs::write(&empty, "").expect("written");
    let missing = dir.path().join("missing");
    let open = |kernel, dump| Kpcpu::open(kernel, dump).expect_err("refused").to_string();
    says(
        &open(&missing, &good),
        &["kernel ", "missing", "No such file"],
    );
    says(
        &open(&text, &good),
        &["kernel ", "text", "not an x86-64 ELF"],
    );
    says(
        &open(&empty, &good),
        &["kernel ", "empty", "not an x86-64 ELF"],
    );
    says(
        &open(&good, &missing),
        &["dump ", "missing", "No such file"],
    );
    says(&open(&good, &text), &["dump ", "text", "not an ELF core"]);
    says(&open(&good, &empty), &["dump ", "empty", "not an ELF core"]);
    // A kernel in the dump's place.
    says(&open(&good, &good), &["dump ", "ELF type 2", "wanted 4"]);
}

#[test]
fn a_truncated_dump() {
    let bytes = image().bytes();
    let error = Dump::from_bytes(&bytes[..bytes.len() - 1]).expect_err("truncated");
    says(
        &error.to_string(),
        &["truncated", "physical 0x0", &bytes.len().to_string()],
    );
    for n in 0..bytes.len().min(2000) {
        Dump::from_bytes(&bytes[..n]).expect_err("truncated");
    }
}

#[test]
fn a_dump_with_paging() {
    let mut bytes = image().bytes();
    // The second program header's p_vaddr: a virtual address, as QEMU writes with paging.
    bytes[64 + 56 + 16..][..8].copy_from_slice(&KERNEL_BASE.to_le_bytes());
    let error = Dump::from_bytes(bytes).expect_err("refused");
    says(
        &error.to_string(),
        &["paging=true", "dump again with paging=false"],
    );
}

#[test]
fn another_kernel() {
    let other = kernel_file(&[0xcd; 20], &[("pcu9_header", HEADER, 384)]);
    let error = refused(|image| image.kernel = other);
    says(
        &error,
        &["another kernel", "abababab", "that of the file cdcdcdcd"],
    );
    let none = kernel_file(&[], &[("pcu9_header", HEADER, 384)]);
    says(
        &refused(|image| image.kernel = none),
        &["no build id", "--build-id"],
    );
    let elsewhere = kernel_file(&[0xab; 20], &[("pcu9_header", HEADER + 64, 384)]);
    says(
        &refused(|image| image.kernel = elsewhere),
        &["physical 0x1040", "no header there"],
    );
    let outside = kernel_file(&[0xab; 20], &[("pcu9_header", 0x10, 384)]);
    says(
        &refused(|image| image.kernel = outside),
        &["the header", "0x10", "not in the image"],
    );
    let without = kernel_file(&[0xab; 20], &[]);
    says(
        &refused(|image| image.kernel = without),
        &["pcu9_header", "percpu_header!"],
    );
}

#[test]
fn a_kernel_that_has_not_begun() {
    let error = refused(|image| image.put_u64s(HEADER + 32, &[0]));
    says(&error, &["Percpu::init", "no per-CPU data"]);
}

#[test]
fn damaged_fields_of_the_header() {
    let u32s = |at, value| refused(|image| image.put_u32s(HEADER + at, &[value]));
    says(&u32s(0, 0), &["no header there"]);
    says(&u32s(16, 2), &["version is 0x2", "knows 0x1"]);
    says(&u32s(20, 100), &["header_bytes is 0x64"]);
    says(&u32s(24, 0x0403_0201), &["byte_order is 0x4030201"]);
    says(&u32s(28, 183), &["machine is 0xb7"]);
    for (at, name) in [
        (84, "max_cpus"),
        (96, "n_groups"),
        (100, "group_bytes"),
        (144, "pcpu_bytes"),
        (156, "descriptor_bytes"),
        (176, "n_units"),
        (180, "n_counters"),
        (208, "unit_bytes"),
        (300, "lwp.bytes"),
        (328, "fpu.area_bytes"),
    ] {
        let value = 0x7fff_ffff;
        says(
            &u32s(at, value),
            &["damaged", &format!("{name} is 0x7fffffff")],
        );
    }
    for (at, name) in [(120, "stride"), (256, "counter_names"), (272, "unit_names")] {
        let error = refused(|image| image.put_u64s(HEADER + at, &[u64::MAX / 2]));
        says(&error, &["damaged", name]);
    }
    let backwards = refused(|image| image.put_u64s(HEADER + 168, &[0]));
    says(&backwards, &["damaged", "descriptors"]);
}

#[test]
fn page_tables_that_loop_or_lead_nowhere() {
    // Every entry of the root leads to the root again: the walk ends after four steps all the same.
    let looping = refused(|image| {
        let root = image.cr3;
        for entry in 0..512 {
            image
                .memory
                .write(root + 8 * entry, &(root | 1).to_le_bytes());
        }
    });
    says(
        &looping,
        &["no page table maps the header", "it is mapped to 0x10000"],
    );
    let empty = refused(|image| {
        let root = image.cr3;
        image.memory.write(root, &[0; 4096]);
    });
    says(&empty, &["not mapped", "level-4 entry at physical 0x10ff8"]);
    let outside = refused(|image| {
        image.put_u64s(HEADER + 344, &[0x7000_0000]);
        image.cr3 = 0x7000_0000;
    });
    says(
        &outside,
        &["level-4 entry at physical 0x70000ff8", "not in the image"],
    );
}

#[test]
fn the_page_tables_of_a_cpu_serve_where_the_header_names_none_or_wrong_ones() {
    for root in [0, 0x5000] {
        let mut image = image();
        image.put_u64s(HEADER + 344, &[root]);
        let kernel = image.open().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(kernel.getncpus().expect("n"), 3);
    }
}

#[test]
fn a_set_of_cpus_that_was_being_changed() {
    let torn = |image: &mut Image| image.put_u64s(HEADER + 40, &[7]);
    says(
        &asked(torn, |k| k.getpcpu(0)),
        &["being changed", "generation 7"],
    );
    says(&asked(torn, |k| k.getncpus()), &["being changed"]);
    says(&asked(torn, |k| k.dpcpu_setcpu(2)), &["being changed"]);
    says(
        &asked(torn, |k| k.counter_u64_fetch(COLOUR)),
        &["being changed"],
    );
    let mut image = image();
    torn(&mut image);
    let mut kernel = image.open().expect("it opens");
    kernel.accept_torn(Torn::Accept);
    assert_eq!(kernel.getncpus().expect("n"), 3);
}

#[test]
fn a_list_of_lwps_that_loops_or_ends_in_nothing() {
    let looping = |image: &mut Image| image.put_u64s(LWPS + 2 * LWP_BYTES, &[LWPS]);
    says(
        &asked(looping, |k| k.lwps()),
        &["comes back to", &format!("{LWPS:#x}")],
    );
    let wild = |image: &mut Image| image.put_u64s(LIST, &[0x1234_5678]);
    says(
        &asked(wild, |k| k.lwps()),
        &["the LWP at 0x12345678", "not mapped"],
    );
    let not_canonical = |image: &mut Image| image.put_u64s(LIST, &[1 << 60]);
    says(
        &asked(not_canonical, |k| k.lwps()),
        &["not a canonical address"],
    );
    let silent = |image: &mut Image| image.put_u64s(HEADER + 280, &[0]);
    says(
        &asked(silent, |k| k.lwps()),
        &["does not say where its LWPs are"],
    );
}

#[test]
fn names_that_are_missing_ambiguous_or_of_another_kind() {
    let nothing = |_: &mut Image| {};
    says(
        &asked(nothing, |k| k.nlist("nowhere")),
        &["`nowhere`", "no symbol"],
    );
    says(&asked(nothing, |k| k.nlist("")), &["``"]);
    says(
        &asked(nothing, |k| k.nlist("COLOUR")),
        &["`COLOUR` is ambiguous", "kernel::COLOUR, other::COLOUR"],
    );
    says(
        &asked(nothing, |k| k.counter("kernel::COLOUR")),
        &["is not a counter"],
    );
    says(&asked(nothing, |k| k.counter("nowhere")), &["`nowhere`"]);
    let late = |image: &mut Image| image.put_u64s(HANDLE, &[0]);
    says(
        &asked(late, |k| k.counter("LATE")),
        &["`LATE` has not been allocated yet"],
    );
}

#[test]
fn cpus_that_are_absent_or_cannot_be() {
    let nothing = |_: &mut Image| {};
    says(
        &asked(nothing, |k| k.getpcpu(64)),
        &["CPU 64 is too big", "below 64"],
    );
    says(
        &asked(nothing, |k| k.getpcpu(u32::MAX)),
        &["CPU 4294967295 is too big"],
    );
    says(
        &asked(nothing, |k| k.dpcpu_setcpu(1)),
        &["CPU 1 is not present"],
    );
    says(
        &asked(nothing, |k| k.dpcpu_setcpu(64)),
        &["CPU 64 is too big"],
    );
    says(&asked(nothing, |k| k.units(1)), &["CPU 1 is not present"]);
    let read =
        |base, bytes: usize, cpu| asked(nothing, |k| k.read_zpcpu(base, &mut vec![0; bytes], cpu));
    says(&read(COLOUR, 8, 1), &["CPU 1 is not present"]);
    says(&read(COLOUR, 8, 99), &["CPU 99 is too big"]);
    let past = read(TEMPLATE + STRIDE - 4, 8, 0);
    says(&past, &["not in the per-CPU area", "8 bytes"]);
    says(&read(TEMPLATE - 8, 8, 0), &["not in the per-CPU area"]);
    says(&read(u64::MAX - 3, 8, 0), &["not in the per-CPU area"]);
    let gone = |image: &mut Image| image.put_u64s(GROUPS + 24, &[0x1000_0000]);
    says(
        &asked(gone, |k| k.counter_u64_fetch(TEMPLATE + STRIDE - 8)),
        &["CPU 0's copy", "0 of 8 bytes"],
    );
}

#[test]
fn a_read_says_how_far_it_came() {
    let image = image();
    let kernel = image.open().expect("it opens");
    let last = KERNEL_BASE + image::IMAGE_BYTES - 4;
    let error = kernel.read(last, &mut [0; 8]).expect_err("the image ends");
    says(
        &error.to_string(),
        &["memory at 0xffffffff80007ffc", "4 of 8 bytes", "not mapped"],
    );
    assert_eq!(kernel.read_partial(last, &mut [0; 8]).expect("a part"), 4);
    assert_eq!(kernel.read_partial(8, &mut [0; 8]).expect("nothing"), 0);
    let error = kernel
        .read(u64::MAX - 3, &mut [0; 8])
        .expect_err("the end of all addresses");
    says(&error.to_string(), &["0 of 8 bytes"]);
}

#[test]
fn random_damage_is_an_error_or_an_answer() {
    let image = image();
    let clean = image.bytes();
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..2000 {
        let mut bytes = clean.clone();
        for _ in 0..random.usize(1..20) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        image::questions::ask_everything(&image.kernel, bytes.as_slice());
    }
    for n in 0..200 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(n * 16)
            .collect();
        image::questions::ask_everything(&image.kernel, bytes.as_slice());
        image::questions::ask_everything(&bytes, clean.as_slice());
    }
}
