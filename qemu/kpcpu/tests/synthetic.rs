//! Machines that the emulator is not: much memory, five levels, large pages, ids in several groups.

#![cfg(not(target_os = "none"))]

mod image;

use image::{COLOUR, Image, Options, Page, colour, packets};
use pcu9_kpcpu::{CpuState, Owner, Place};

/// Everything that the image holds, compared with what the reader says.
fn check(options: &Options) {
    let image = Image::new(options.clone());
    let mut kernel = image
        .open()
        .unwrap_or_else(|error| panic!("{error}: {options:?}"));
    assert_eq!(kernel.getmaxcpu().expect("max"), options.max_cpus);
    assert_eq!(kernel.getncpus().expect("n") as usize, options.cpus.len());
    assert_eq!(kernel.present().expect("present"), options.cpus);
    for (place, &cpu) in options.cpus.iter().enumerate() {
        let block = kernel.getpcpu(cpu).expect("readable").expect("present");
        assert_eq!((block.cpu, block.state), (cpu, CpuState::Started));
        assert_eq!(block.dynamic, image.offset(place));
        assert_eq!(block.extension, [0xee; 16]);
        kernel.dpcpu_setcpu(cpu).expect("present");
        let found = kernel.nlist("kernel::COLOUR").expect("a variable");
        assert_eq!(found.address, COLOUR.wrapping_add(image.offset(place)));
        let mut bytes = [0; 8];
        kernel.read(found.address, &mut bytes).expect("readable");
        assert_eq!(u64::from_le_bytes(bytes), colour(cpu));
        let unit = &kernel.units(cpu).expect("units")[0];
        assert_eq!(unit.owner, Owner::Live(image::LWPS));
        assert_eq!((unit.serial, unit.residue, unit.is_enabled), (5, 7, true));
        assert_eq!(unit.counters, [30, 20]);
    }
    let base = kernel.counter("PACKETS").expect("a counter");
    let sum: u64 = options.cpus.iter().map(|&cpu| packets(cpu)).sum();
    assert_eq!(kernel.counter_u64_fetch(base).expect("sum"), sum);
    let late = kernel.counter("LATE").expect("allocated");
    let ids: u64 = options.cpus.iter().map(|&cpu| u64::from(cpu) + 1).sum();
    assert_eq!(kernel.counter_u64_fetch(late).expect("sum"), ids);
    let lwps = kernel.lwps().expect("the list");
    assert_eq!(lwps.len() as u64, options.n_lwps);
    assert_eq!(lwps[2].name.as_deref(), Some("lwp 2"));
    assert_eq!(lwps[2].units, [Place::Memory]);
    let fpu = kernel.fpu(&lwps[2]).expect("readable").expect("saved");
    assert_eq!((fpu.fcw, fpu.mxcsr), (0x027f, 0x1fa0));
    assert_eq!(fpu.st[0], (u128::MAX / 255 * 0x11) & ((1 << 80) - 1));
    assert_eq!(fpu.xmm[0], u128::MAX / 255 * 0x22);
    assert_eq!(fpu.ymm_hi.expect("AVX")[0], u128::MAX / 255 * 0x33);
}

const GIB: u64 = 1 << 30;

#[test]
fn four_and_five_levels_and_pages_of_every_size_with_areas_above_4_gib() {
    for levels in [4, 5] {
        for page in [Page::Small, Page::Large, Page::Huge] {
            check(&Options {
                levels,
                page,
                areas: 5 * GIB + 0x3000,
                ram: vec![(0, 0x30_000), (5 * GIB, 0x10_000)],
                ..Options::default()
            });
        }
    }
}

#[test]
fn an_area_that_begins_in_one_segment_and_ends_in_the_next() {
    check(&Options {
        areas: 0x2_fe00,
        ram: vec![(0x3_0000, 0x1_0000), (0, 0x3_0000)],
        ..Options::default()
    });
}

#[test]
fn ids_of_several_groups() {
    check(&Options {
        cpus: vec![1, 63, 64, 200, 255],
        max_cpus: 256,
        ..Options::default()
    });
    check(&Options {
        cpus: vec![0],
        max_cpus: 1,
        ..Options::default()
    });
}
