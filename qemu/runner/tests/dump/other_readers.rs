//! Readers that share no code with this one see the same: gdb's protocol on the running guest, `readelf` on the dump.

use std::process::Command;
use std::time::{Duration, Instant};

use pcu9_kpcpu::{Dump, Kpcpu};
use pcu9_runner::Held;
use serde_json::json;

use crate::gdb::Gdb;

#[test]
fn gdbs_protocol_on_the_guest_reads_what_the_reader_reads_in_its_dump() {
    super::boot(3, |held| {
        let mut kernel = super::open(held);
        let socket = held.dir.join("gdb");
        let line = format!("gdbserver unix:{},server=on,wait=off", socket.display());
        held.qmp
            .execute("human-monitor-command", &json!({ "command-line": line }))
            .expect("QEMU listens for gdb");
        let mut gdb = Gdb::connect(&socket, Duration::from_secs(30));
        let n_compared = compare(&mut kernel, &mut gdb);
        gdb.detach();
        assert!(
            n_compared > 100,
            "only {n_compared} stretches were compared"
        );
    });
}

/// Reads everything by gdb, from the header on and by its documentation alone, and compares; returns how many values.
fn compare(kernel: &mut Kpcpu, gdb: &mut Gdb) -> usize {
    let mut n_compared = 0;
    let mut same = |what: &str, ours: u64, theirs: u64| {
        assert_eq!(ours, theirs, "{what}");
        n_compared += 1;
    };
    let header = kernel.nlist("pcu9_header").expect("the header").address;
    let groups = gdb.u64(header + 88);
    let n_groups = gdb.u64(header + 96) & 0xffff_ffff;
    let (pcpu, list) = (gdb.u64(header + 136), gdb.u64(header + 280));
    let mut present = Vec::new();
    for id in 0..n_groups * 64 {
        let (group, place) = (groups + id / 64 * 536, id % 64);
        if gdb.u64(group) >> place & 1 == 0 {
            continue;
        }
        let cpu = u32::try_from(id).expect("small");
        present.push(cpu);
        let offset = gdb.u64(group + 24 + 8 * place);
        let block = kernel.getpcpu(cpu).expect("readable").expect("present");
        let at = pcpu.wrapping_add(offset);
        same("dynamic", block.dynamic, offset);
        same("the block", block.address, at);
        same("its id", id, gdb.u64(at) & 0xffff_ffff);
        same("the current LWP", block.current_lwp, gdb.u64(at + 8));
        same("the idle LWP", block.idle_lwp, gdb.u64(at + 16));
        same("where its units are", block.pcu, gdb.u64(at + 40));
        for name in ["COLOUR", "PACKETS", "TRAPS", "SYSCALLS", "TICKS"] {
            kernel.dpcpu_setcpu(cpu).expect("present");
            let found = kernel.nlist(name).expect(name);
            let mut bytes = [0; 8];
            kernel.read(found.address, &mut bytes).expect(name);
            same(name, u64::from_le_bytes(bytes), gdb.u64(found.address));
        }
        let unit = &kernel.units(cpu).expect("units")[0];
        for (index, &counter) in unit.counters.iter().enumerate() {
            let entry = block.pcu + 40 + 24;
            same(
                "a unit's counter",
                counter,
                gdb.u64(entry + 8 * index as u64),
            );
        }
    }
    assert_eq!(kernel.present().expect("present"), present);
    let mut at = gdb.u64(list);
    let next = gdb.u64(header + 288) & 0xffff_ffff;
    for lwp in kernel.lwps().expect("the list") {
        same("an LWP", lwp.address, at);
        at = gdb.u64(at + next);
    }
    same("the end of the list", 0, at);
    n_compared
}

/// All CPUs' registers, as QEMU's monitor tells them.
fn registers(held: &mut Held<'_>) -> String {
    let command = json!({ "command-line": "info registers -a" });
    let told = held.qmp.execute("human-monitor-command", &command);
    told.expect("QEMU answers").to_string()
}

/// A segment as it is compared: file offset, physical address, size in the file.
type Segment = (u64, u64, u64);

#[test]
fn readelf_lists_the_segments_and_notes_that_the_reader_finds() {
    super::boot(2, |held| {
        // The one that said the last line stops some instructions later.
        let deadline = Instant::now() + Duration::from_mins(1);
        while registers(held).matches("HLT=1").count() < 2 {
            assert!(Instant::now() < deadline, "the CPUs do not halt");
        }
        let path = super::dump(held);
        let dump = Dump::open(&path).expect("a dump");
        let said = |what: &str| {
            let output = Command::new("readelf")
                .args(["--wide", what])
                .arg(&path)
                .output();
            let output = output.expect("readelf (package binutils) is needed for this test");
            assert!(output.status.success());
            String::from_utf8(output.stdout).expect("text")
        };
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex");
        let segments = said("--segments");
        let theirs = segments.lines().filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words.first() == Some(&"LOAD")).then(|| (hex(words[1]), hex(words[3]), hex(words[4])))
        });
        let mut theirs: Vec<Segment> = theirs.collect();
        theirs.sort_by_key(|segment| segment.1);
        let ours: Vec<Segment> = dump
            .segments()
            .map(|s| (s.offset, s.physical, s.bytes))
            .collect();
        assert_eq!(ours, theirs);
        let notes = said("--notes");
        let n_cpus = notes
            .lines()
            .filter(|l| l.trim_start().starts_with("QEMU"))
            .count();
        assert_eq!(n_cpus, dump.cpus().len());
        assert_eq!(n_cpus, 2);
        // A CPU's registers: QEMU tells them by its monitor, too.
        let told = registers(held);
        for cpu in dump.cpus() {
            for value in [
                format!("CR3={:016x}", cpu.cr3),
                format!("RIP={:016x}", cpu.rip),
            ] {
                assert!(told.contains(&value), "{value}: {told}");
            }
        }
    });
}

#[test]
fn a_dump_with_paging_is_refused_since_memory_is_missing() {
    super::boot(1, |held| {
        let path = held.dir.join("paging");
        let arguments = json!({ "paging": true, "protocol": format!("file:{}", path.display()) });
        held.qmp
            .execute("dump-guest-memory", &arguments)
            .expect("QEMU makes such a dump");
        let error = Dump::open(&path).expect_err("it is refused");
        assert!(
            error.to_string().contains("dump again with paging=false"),
            "{error}"
        );
    });
}
