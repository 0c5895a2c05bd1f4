//! The header as a reader finds it: in the file, by symbol and note, and in memory, byte by byte.

use std::mem::offset_of;

use object::read::elf::{ElfFile64, FileHeader};
use object::{LittleEndian, Object, ObjectSymbol};
use pcu9::percpu::header::{HeaderNote, MAGIC, VERSION};
use pcu9::percpu::{CounterU64, Pcpu, Translation};

use crate::machine::{
    EXPORTED, Extension, LATER, Lwp, MAX_CPUS, Machine, PACKETS, PCPU, STRIDE, cpu,
};

/// Numbers out of this process's memory, as a reader takes them from a dump.
struct Memory(usize);

impl Memory {
    fn u32(&self, at: usize) -> u32 {
        // SAFETY: the tests read what the header's page says is there.
        unsafe { std::ptr::with_exposed_provenance::<u32>(self.0 + at).read() }
    }
    fn u64(&self, at: usize) -> u64 {
        // SAFETY: as above.
        unsafe { std::ptr::with_exposed_provenance::<u64>(self.0 + at).read() }
    }
    fn at(&self, at: usize) -> Self {
        Self(usize::try_from(self.u64(at)).expect("an address"))
    }
    fn text(&self, at: usize) -> &str {
        let bytes = std::ptr::with_exposed_provenance::<u8>(self.at(at).0);
        let n = usize::try_from(self.u64(at + 8)).expect("a length");
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, n) };
        std::str::from_utf8(bytes).expect("UTF-8")
    }
}

fn header_of(machine: &Machine) -> Memory {
    Memory(std::ptr::from_ref(machine.percpu.header()).expose_provenance())
}

/// What the group says, and the address of `name` on a CPU, by the rules of the header's page alone.
fn address(header: &Memory, number: usize, name: u64) -> Option<Memory> {
    let group = Memory(header.at(88).0 + number / 64 * header.u32(100) as usize);
    let is_present = group.u64(0) >> (number % 64) & 1 != 0;
    let offset = group.u64(24 + number % 64 * 8);
    is_present.then(|| Memory(usize::try_from(name.wrapping_add(offset)).expect("an address")))
}

#[test]
fn the_file_names_the_header_by_symbol_and_by_note() {
    let bytes = std::fs::read(std::env::current_exe().expect("a program")).expect("its file");
    let file: ElfFile64<'_, LittleEndian> = ElfFile64::parse(&*bytes).expect("ELF");
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok("pcu9_header"))
        .expect("the symbol");
    assert_eq!(symbol.size(), 384);
    let bias = std::ptr::from_ref(EXPORTED.header()).addr() as u64 - symbol.address();
    let mut found = 0;
    for segment in file.elf_program_headers() {
        use object::read::elf::ProgramHeader;
        let Some(mut notes) = segment.notes(LittleEndian, &*bytes).expect("notes") else {
            continue;
        };
        while let Some(note) = notes.next().expect("a note") {
            if note.name() == b"pcu9" {
                found += 1;
                assert_eq!(note.n_type(LittleEndian), 1);
                let number =
                    |at: usize| u32::from_le_bytes(note.desc()[at..at + 4].try_into().expect("4"));
                assert_eq!(
                    (number(0), number(4), note.desc().len()),
                    (VERSION, 384, 16)
                );
            }
        }
    }
    assert_eq!(found, 1);
    assert!(file.elf_header().e_machine(LittleEndian) == 62 && bias.is_multiple_of(4096));
}

#[test]
fn the_note_that_travels_is_a_copy_of_the_header_behind_20_bytes() {
    let machine = Machine::new(&[3]);
    let header = header_of(machine);
    machine.percpu.header().set_build_id(&[0xab; 20]);
    // SAFETY: the machine is this test's, and nothing changes it.
    let note = unsafe { HeaderNote::of(machine.percpu.header()) };
    assert_eq!(size_of_val(&note), 404);
    let note = Memory(std::ptr::from_ref(&note).expose_provenance());
    assert_eq!([0, 4, 8].map(|at| note.u32(at)), [5, 384, 2]);
    assert_eq!(
        [note.u32(12), note.u32(16)],
        [u32::from_le_bytes(*b"pcu9"), 0]
    );
    for at in (0..384).step_by(4) {
        assert_eq!(note.u32(20 + at), header.u32(at), "{at}");
    }
}

#[test]
fn every_field_is_where_the_page_says() {
    let machine = Machine::new(&[0, 65]);
    let header = header_of(machine);
    let own = machine.percpu.header();
    own.set_build_id(&[1, 2, 3, 4]);
    own.set_translation(Translation {
        root_table: 0x1000,
        levels: 5,
        direct_map: 0xffff_8000_0000_0000,
        direct_map_bytes: 1 << 30,
        image_bias: 0xffff_ffff_8000_0000,
    });
    own.set_fpu_area(pcu9::percpu::header::AreaFormat::Standard, 832, 7);
    let first = (u128::from(header.u64(8)) << 64) | u128::from(header.u64(0));
    assert_eq!(first.to_le_bytes(), MAGIC);
    assert_eq!(
        [16, 20, 24, 28].map(|at| header.u32(at)),
        [1, 384, 0x0102_0304, 62]
    );
    assert_eq!(header.u64(32), header.0 as u64);
    assert_eq!(header.u64(40) % 2, 0);
    assert_eq!((header.u32(48), header.u32(52)), (4, 0x0403_0201));
    assert_eq!(header.u32(84), u32::from(MAX_CPUS));
    assert_eq!(header.u64(88), machine.groups.as_ptr().addr() as u64);
    assert_eq!((header.u32(96), header.u32(100)), (4, 536));
    let (start, stop) = (header.u64(104), header.u64(112));
    assert_eq!(start % 64, 0);
    assert_eq!(header.u64(120), STRIDE as u64);
    assert_eq!(header.u64(128), start + (stop - start).next_multiple_of(64));
    assert_eq!(header.u64(136), PCPU.name() as u64);
    assert_eq!(header.u32(144) as usize, size_of::<Pcpu<Lwp, Extension>>());
    assert_eq!(
        header.u32(148) as usize,
        offset_of!(Pcpu<Lwp, Extension>, extension)
    );
    assert_eq!(header.u32(156), 64);
    assert_eq!(header.u32(176), 1);
    let names: Vec<_> = header.text(248).lines().collect();
    assert_eq!(names.len(), header.u32(180) as usize);
    assert_eq!((names[0], names.last()), ("traps", Some(&"xcalls_raced")));
    assert_eq!(header.text(264), "reg\n");
    assert_eq!((header.u64(280), header.u32(292)), (0, u32::MAX));
    assert_eq!([324, 328].map(|at| header.u32(at)), [2, 832]);
    assert_eq!(header.u64(336), 7);
    assert_eq!((header.u64(344), header.u32(352)), (0x1000, 5));
    assert_eq!(
        (header.u64(360), header.u64(368)),
        (0xffff_8000_0000_0000, 1 << 30)
    );
    assert_eq!(header.u64(376), 0xffff_ffff_8000_0000);
}

#[test]
fn descriptors_name_every_variable_and_counter() {
    let machine = Machine::new(&[0]);
    let header = header_of(machine);
    let (first, end) = (header.at(160).0, header.at(168).0);
    assert_eq!((end - first) % 64, 0);
    let mut seen: Vec<_> = (first..end)
        .step_by(64)
        .map(|at| {
            let entry = Memory(at);
            let name = entry.text(0).to_owned();
            (
                name,
                entry.text(16).to_owned(),
                entry.u32(48),
                entry.u64(40),
            )
        })
        .collect();
    seen.sort();
    let is_field = |entry: &(String, String, u32, u64)| entry.2 > 4;
    let fields: Vec<_> = seen.extract_if(.., |entry| is_field(entry)).collect();
    let is = |name: &str, type_name: &str, kind, bytes| {
        (
            format!("percpu::machine::{name}"),
            type_name.to_owned(),
            kind,
            bytes,
        )
    };
    let pcpu = size_of::<Pcpu<Lwp, Extension>>() as u64;
    let cpu_state = u64::from(header.u32(184));
    assert_eq!(
        seen,
        [
            is("CPU_PCU", "CpuPcu<Lwp, 1>", 1, cpu_state),
            is("DEPTH", "Cell<u32>", 1, 4),
            is("LATER", "CounterU64", 3, 8),
            is("PACKETS", "AtomicU64", 2, 8),
            is("PCPU", "Pcpu<Lwp, Extension>", 1, pcpu),
            is("TICKS", "AtomicU64", 1, 8),
        ]
    );
    assert_eq!(
        fields,
        [
            ("extension.interrupts".into(), "AtomicU64".into(), 5, 8),
            ("priority".into(), "u32".into(), 6, 4),
        ]
    );
}

#[test]
fn a_reader_with_the_page_alone_finds_every_copy() {
    let machine = Machine::new(&[0, 65]);
    let counter = CounterU64::alloc(machine.percpu).expect("room");
    for (number, n) in [(0, 11), (65, 22)] {
        PACKETS.add(machine.go_to(number), n);
        counter.add(machine.go_to(number), 10 * n);
    }
    machine.percpu.set_offline(cpu(65)).expect("present");
    let header = header_of(machine);
    for (number, n, state) in [(0, 11, 2), (65, 22, 3)] {
        let read = |name| address(&header, number, name).expect("present");
        assert_eq!(read(PACKETS.name() as u64).u64(0), n);
        assert_eq!(read(counter.name() as u64).u64(0), 10 * n);
        let block = read(header.u64(136));
        assert_eq!((block.u32(0) as usize, block.u32(4)), (number, state));
        assert_eq!(block.u64(32), block.0 as u64);
        assert_eq!(block.at(40).u64(0), 0, "the attention word of its CpuPcu");
        assert_eq!(Memory(block.0 + header.u32(148) as usize).u64(0), 77);
    }
    assert!(address(&header, 1, header.u64(136)).is_none());
}

#[test]
fn a_counter_that_is_allocated_later_is_found_by_its_handle() {
    let machine = Machine::new(&[0, 3]);
    let header = header_of(machine);
    let entry = (header.at(160).0..header.at(168).0)
        .step_by(64)
        .map(Memory)
        .find(|entry| entry.u32(48) == 3)
        .expect("LATER");
    assert_eq!(entry.text(0), "percpu::machine::LATER");
    assert_eq!(entry.at(32).u64(0), 0);
    assert!(LATER.get().is_none());
    let counter = LATER.alloc(machine.percpu).expect("room");
    counter.add(machine.go_to(3), 8);
    let name = entry.at(32).u64(0);
    assert_eq!(address(&header, 3, name).expect("present").u64(0), 8);
    assert!(std::ptr::eq(
        LATER.alloc(machine.percpu).expect("there"),
        counter
    ));
}

#[test]
fn the_generation_is_even_but_for_changes() {
    let machine = Machine::new(&[0]);
    let header = header_of(machine);
    let before = header.u64(40);
    machine.add(1).expect("a new CPU");
    assert_eq!(header.u64(40), before + 2);
}
