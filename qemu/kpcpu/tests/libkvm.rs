//! `kvm_getpcpu`(3) as it is meant, and libkvm's known defects, none of which is copied. `tests/tables/kvm.toml` lists both.

#![cfg(not(target_os = "none"))]

mod image;

use image::{COLOUR, GROUPS, HEADER, Image, Options, PACKETS, TEMPLATE, ZPCPU, colour, packets};
use pcu9_kpcpu::{CpuState, Error, Kpcpu};

fn open(options: Options) -> (Image, Kpcpu) {
    let image = Image::new(options);
    let kernel = image.open().unwrap_or_else(|error| panic!("{error}"));
    (image, kernel)
}

fn u64_at(kernel: &Kpcpu, address: u64) -> u64 {
    let mut bytes = [0; 8];
    kernel.read(address, &mut bytes).expect("readable");
    u64::from_le_bytes(bytes)
}

#[test]
fn the_bound_of_ids_is_not_the_number_of_cpus() {
    let (_, kernel) = open(Options::default());
    assert_eq!(kernel.getmaxcpu().expect("max"), 64);
    assert_eq!(kernel.getncpus().expect("n"), 3);
}

#[test]
fn an_absent_cpu_is_none_and_an_impossible_one_an_error() {
    let (_, kernel) = open(Options::default());
    assert!(kernel.getpcpu(0).expect("readable").is_some());
    assert_eq!(kernel.getpcpu(1).expect("legal"), None);
    // libkvm: a negative number reads before its table, a large one looks absent.
    for cpu in [64, u32::MAX] {
        assert!(matches!(
            kernel.getpcpu(cpu),
            Err(Error::CpuTooBig { max: 64, .. })
        ));
    }
}

#[test]
fn an_offline_cpu_is_marked_and_its_data_are_there() {
    let mut image = Image::new(Options::default());
    image.put_u64s(GROUPS + 8, &[0b1001, 0b100]);
    let kernel = image.open().expect("it opens");
    assert_eq!(kernel.getncpus().expect("n"), 2);
    let block = kernel.getpcpu(2).expect("readable").expect("present");
    assert_eq!(block.state, CpuState::Offline);
    let sum = packets(0) + packets(2) + packets(3);
    assert_eq!(kernel.counter_u64_fetch(PACKETS).expect("sum"), sum);
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_and_not_an_absent_cpu() {
    let mut image = Image::new(Options::default());
    image.put_u64s(GROUPS + 24, &[0x1000_0000]);
    let kernel = image.open().expect("it opens");
    let error = kernel.getpcpu(0).expect_err("its area is not mapped");
    assert!(
        error.to_string().starts_with("the block of CPU 0 at 0x"),
        "{error}"
    );
}

#[test]
fn an_offset_of_0_is_an_offset_like_any_other() {
    let mut image = Image::new(Options::default());
    // CPU 0 lives in the template itself.
    image.put_u64s(GROUPS + 24, &[0]);
    image.put_u64s(COLOUR, &[77]);
    let mut kernel = image.open().expect("it opens");
    kernel.dpcpu_setcpu(0).expect("present");
    let found = kernel.nlist("kernel::COLOUR").expect("a variable");
    assert_eq!(
        (found.address, u64_at(&kernel, found.address)),
        (COLOUR, 77)
    );
}

#[test]
fn names_follow_the_current_cpu_which_is_0_until_set() {
    let (image, mut kernel) = open(Options::default());
    let first = kernel.nlist("kernel::COLOUR").expect("a variable");
    assert_eq!(first.cpu, Some(0));
    for (place, &cpu) in image.options.cpus.iter().enumerate() {
        kernel.dpcpu_setcpu(cpu).expect("present");
        let found = kernel.nlist("kernel::COLOUR").expect("a variable");
        assert_eq!(found.address, COLOUR.wrapping_add(image.offset(place)));
        assert_eq!(u64_at(&kernel, found.address), colour(cpu));
    }
    // What was found before stays CPU 0's, and says so.
    assert_eq!(u64_at(&kernel, first.address), colour(0));
}

#[test]
fn a_call_that_fails_changes_nothing() {
    let (_, mut kernel) = open(Options::default());
    kernel.dpcpu_setcpu(2).expect("present");
    assert!(matches!(kernel.dpcpu_setcpu(1), Err(Error::CpuAbsent(1))));
    assert!(matches!(
        kernel.dpcpu_setcpu(64),
        Err(Error::CpuTooBig { .. })
    ));
    assert_eq!(kernel.nlist("kernel::COLOUR").expect("found").cpu, Some(2));
}

#[test]
fn a_symbol_in_the_template_is_per_cpu_whatever_it_is_called() {
    let mut image = Image::new(Options::default());
    let symbols = [
        ("pcu9_header", HEADER, 384),
        ("pcpu_entry_colour", COLOUR, 8),
    ];
    image.kernel = image::kernel_file(&[0xab; 20], &symbols);
    let mut kernel = image.open().expect("it opens");
    kernel.dpcpu_setcpu(3).expect("present");
    // libkvm: the literal name gives the initial value's address.
    let found = kernel.nlist("pcpu_entry_colour").expect("a symbol");
    assert_eq!(
        (found.cpu, u64_at(&kernel, found.address)),
        (Some(3), colour(3))
    );
    // And a plain symbol is no CPU's.
    assert_eq!(kernel.nlist("pcu9_header").expect("a symbol").cpu, None);
}

#[test]
fn read_zpcpu_returns_the_bytes_copied_of_that_cpu_alone() {
    let (_, kernel) = open(Options::default());
    for cpu in [0, 2, 3] {
        let mut bytes = [0; 8];
        assert_eq!(
            kernel.read_zpcpu(ZPCPU, &mut bytes, cpu).expect("readable"),
            8
        );
        assert_eq!(u64::from_le_bytes(bytes), u64::from(cpu) + 1);
    }
    // libkvm: any id is read, whatever lies there.
    assert!(matches!(
        kernel.read_zpcpu(ZPCPU, &mut [0; 8], 1),
        Err(Error::CpuAbsent(1))
    ));
    assert!(matches!(
        kernel.read_zpcpu(ZPCPU, &mut [0; 8], 64),
        Err(Error::CpuTooBig { .. })
    ));
    let error = kernel.read_zpcpu(TEMPLATE - 8, &mut [0; 8], 0);
    assert!(matches!(error, Err(Error::NotPerCpu { .. })));
}

#[test]
fn the_stride_is_the_kernels_and_not_the_size_of_a_structure() {
    let (image, kernel) = open(Options::default());
    let block = |cpu| {
        kernel
            .getpcpu(cpu)
            .expect("readable")
            .expect("present")
            .address
    };
    assert_eq!(block(2) - block(0), image::STRIDE);
    assert_eq!(image.offset(1).wrapping_sub(image.offset(0)), image::STRIDE);
}

#[test]
fn a_counter_is_summed_over_sparse_ids() {
    // libkvm: ids 0 to n - 1, so 63 and 70 would be left out.
    let options = Options {
        cpus: vec![0, 63, 70],
        max_cpus: 128,
        ..Options::default()
    };
    let (_, kernel) = open(options);
    let parts = [0, 63, 70].map(|cpu| (cpu, packets(cpu)));
    assert_eq!(kernel.counter_u64_percpu(PACKETS).expect("parts"), parts);
    let sum: u64 = parts.iter().map(|(_, part)| part).sum();
    assert_eq!(kernel.counter_u64_fetch(PACKETS).expect("sum"), sum);
}

#[test]
fn a_counter_that_cannot_be_read_is_an_error_and_a_zero_counter_is_zero() {
    let (_, kernel) = open(Options::default());
    let free = ZPCPU + 64;
    assert_eq!(kernel.counter_u64_fetch(free).expect("all zero"), 0);
    let outside = kernel.counter_u64_fetch(TEMPLATE - 8);
    assert!(matches!(outside, Err(Error::NotPerCpu { .. })));
    let mut image = Image::new(Options::default());
    image.put_u64s(GROUPS + 24 + 8 * 3, &[0x1000_0000]);
    let kernel = image.open().expect("it opens");
    let error = kernel
        .counter_u64_fetch(PACKETS)
        .expect_err("CPU 3's part is missing");
    assert!(error.to_string().starts_with("CPU 3's copy of"), "{error}");
}

#[test]
fn a_counter_wraps() {
    let mut image = Image::new(Options::default());
    let at = PACKETS.wrapping_add(image.offset(0));
    image.put_u64s(at, &[u64::MAX]);
    let kernel = image.open().expect("it opens");
    let sum = (packets(2) + packets(3)).wrapping_add(u64::MAX);
    assert_eq!(kernel.counter_u64_fetch(PACKETS).expect("sum"), sum);
}

#[test]
fn handles_share_nothing() {
    let (_, mut one) = open(Options::default());
    let (_, two) = open(Options {
        cpus: vec![0, 5],
        max_cpus: 128,
        ..Options::default()
    });
    one.dpcpu_setcpu(3).expect("present");
    assert_eq!(
        (one.getmaxcpu().expect("max"), two.getmaxcpu().expect("max")),
        (64, 128)
    );
    assert_eq!(
        (one.getncpus().expect("n"), two.getncpus().expect("n")),
        (3, 2)
    );
    assert_eq!(two.nlist("kernel::COLOUR").expect("found").cpu, Some(0));
    assert_eq!(one.present().expect("present"), [0, 2, 3]);
}

#[test]
fn a_cleared_cache_forgets_everything_and_a_kept_one_nothing() {
    use std::os::unix::fs::FileExt;
    let image = Image::new(Options::default());
    let dir = tempfile::tempdir().expect("a directory");
    let (kernel, dump) = (dir.path().join("kernel"), dir.path().join("dump"));
    std::fs::write(&kernel, &image.kernel).expect("written");
    image.write(&dump);
    let kernel = Kpcpu::open(&kernel, &dump).expect("it opens");
    assert_eq!(
        (
            kernel.getmaxcpu().expect("max"),
            kernel.getncpus().expect("n")
        ),
        (64, 3)
    );
    // The kernel goes on: CPU 3 goes, and the bound of ids is lowered.
    let head = image.bytes().len() as u64 - 0x30_000;
    let file = std::fs::File::options()
        .write(true)
        .open(&dump)
        .expect("the dump");
    let put = |at: u64, value: &[u8]| {
        file.write_all_at(value, head + at - image::KERNEL_BASE)
            .expect("written");
    };
    put(GROUPS, &0b101u64.to_le_bytes());
    put(GROUPS + 8, &0b101u64.to_le_bytes());
    put(HEADER + 84, &8u32.to_le_bytes());
    assert_eq!(
        (
            kernel.getmaxcpu().expect("max"),
            kernel.getncpus().expect("n")
        ),
        (64, 3)
    );
    kernel.clear_cache();
    // libkvm: the number of CPUs would still be the old one.
    assert_eq!(
        (
            kernel.getmaxcpu().expect("max"),
            kernel.getncpus().expect("n")
        ),
        (8, 2)
    );
    assert_eq!(kernel.getpcpu(3).expect("legal"), None);
}

#[test]
fn an_error_is_of_the_call_that_failed_and_says_where() {
    let (_, kernel) = open(Options::default());
    let error = kernel.nlist("nothing").expect_err("no such name");
    assert_eq!(
        error.to_string(),
        "no symbol, per-CPU variable or counter is called `nothing`"
    );
    // A later success is a success: there is no text that stays behind.
    assert!(kernel.nlist("plain").is_ok());
}
