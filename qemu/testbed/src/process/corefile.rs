//! A core file of a process that a signal ends: every thread's general registers and FPU state, and the memory.
//!
//! Other threads stand still until it is written; the FPU state of each is fetched from wherever it is live. The file goes over the
//! serial line, in lines that begin with `@core`: its length first, then pieces with their places, what is zero left out. The runner
//! puts it together.
//!
//! System V Application Binary Interface, chapter "Object Files"; notes: Linux, `fs/binfmt_elf.c`, `include/linux/elfcore.h`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use elf::abi::{
    ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_CORE, EV_CURRENT, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE,
};
use pcu9::x86_64::fpu::foreign::Form;

use super::files::Hex;
use super::ptrace::{FXSAVE_BYTES, NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE};
use super::signal::Signal;
use super::space::Access;
use super::stop::with_standing;
use super::{Process, registers};
use crate::boot::info::option_number;
use crate::cpu::trap::Frame;
use crate::glue::foreign;
use crate::line;
use crate::lwp::Lwp;
use crate::memory::PAGE_BYTES;
use crate::sched;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// Of the file in one line.
const PIECE_BYTES: usize = 1024;
/// Places in `struct elf_prstatus`.
const PRSTATUS_BYTES: usize = 336;
const AT_CURSIG: usize = 12;
const AT_PID: usize = 32;
const AT_REGISTERS: usize = 112;
const AT_FPVALID: usize = 328;

/// May one more process leave a core file? The command line says how many do: `cores=N`.
pub(super) fn is_wanted() -> bool {
    static N_LEFT: spin::Once<AtomicU64> = spin::Once::new();
    let left = N_LEFT.call_once(|| AtomicU64::new(option_number("cores").unwrap_or(0)));
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

/// A segment: what the file has of it, and where it is in memory.
struct Segment {
    range: Range<u64>,
    access: Access,
}

impl Segment {
    fn flags(&self) -> u32 {
        match self.access {
            Access::None => 0,
            Access::Read => PF_R,
            Access::ReadWrite => PF_R | PF_W,
            Access::ReadExecute => PF_R | PF_X,
        }
    }

    fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// What nobody may look at is not written.
    fn file_bytes(&self) -> u64 {
        match self.access {
            Access::None => 0,
            _ => self.bytes(),
        }
    }
}

/// Writes the core file of the current process, which `signal` ends while the current thread was about to go on with `frame`. Its other
/// threads are on their way out, and stand still before they end: this waits for them.
pub(super) fn write(process: &Arc<Process>, signal: Signal, frame: &Frame) {
    let own = sched::current();
    let others = sched::poll_each_tick(|| {
        let mut lwps = process.lwps();
        lwps.retain(|lwp| !Arc::ptr_eq(lwp, &own));
        let all_stand = lwps.iter().all(|lwp| lwp.thread.stop.is_standing());
        all_stand.then_some(lwps)
    });
    let mut notes = Vec::new();
    // The one that the signal is about is the first.
    let state = foreign::dump(Form::Regset).unwrap_or_default();
    thread_notes(&mut notes, &own, signal, &mut frame.clone(), &state);
    for lwp in &others {
        let state = with_standing(lwp, |stood| stood.dump(Form::Regset)).unwrap_or_default();
        let stop = &lwp.thread.stop;
        stop.with_frame(|frame| thread_notes(&mut notes, lwp, signal, frame, &state));
    }
    let segments = process.with_space(|space| space.ranges());
    let segments = segments.into_iter();
    let segments: Vec<_> = segments
        .map(|(range, access)| Segment { range, access })
        .collect();
    send(process, &notes, &segments);
}

/// Adds a note: owner, type, contents, each padded to four bytes.
fn note(notes: &mut Vec<u8>, owner: &[u8], kind: u64, contents: &[u8]) {
    for word in [owner.len() as u32, contents.len() as u32, kind as u32] {
        notes.extend(word.to_le_bytes());
    }
    for part in [owner, contents] {
        notes.extend(part);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

/// A thread's notes. `state` is empty if its FPU state could not be had.
fn thread_notes(notes: &mut Vec<u8>, lwp: &Lwp, signal: Signal, frame: &mut Frame, state: &[u8]) {
    let mut status = [0; PRSTATUS_BYTES];
    let mut put = |at: usize, bytes: &[u8]| status[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &signal.number().to_le_bytes());
    put(AT_CURSIG, &(signal.number() as u16).to_le_bytes());
    put(AT_PID, &(lwp.thread.tid() as u32).to_le_bytes());
    let words = registers::of(frame, lwp).map(u64::to_le_bytes);
    put(AT_REGISTERS, words.as_flattened());
    put(AT_FPVALID, &u32::from(!state.is_empty()).to_le_bytes());
    note(notes, b"CORE\0", NT_PRSTATUS, &status);
    if let Some(legacy) = state.get(..FXSAVE_BYTES) {
        note(notes, b"CORE\0", NT_PRFPREG, legacy);
    }
    if foreign::has_xsave() && !state.is_empty() {
        note(notes, b"LINUX\0", NT_X86_XSTATE, state);
    }
}

/// The ELF header and the program headers; where the segments' contents begin.
fn headers(notes: &[u8], segments: &[Segment]) -> (Vec<u8>, u64) {
    let n_segments = segments.len() + 1;
    let at_notes = HEADER_BYTES + n_segments * SEGMENT_BYTES;
    let at_memory = (at_notes + notes.len()).next_multiple_of(PAGE_BYTES as usize) as u64;
    let mut file = Vec::from(b"\x7fELF");
    file.extend([ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
    file.resize(16, 0);
    file.extend(ET_CORE.to_le_bytes());
    file.extend(EM_X86_64.to_le_bytes());
    file.extend(u32::from(EV_CURRENT).to_le_bytes());
    // No entry point, the program headers, no sections, no flags.
    let places = [0, HEADER_BYTES as u64, 0];
    file.extend(places.map(u64::to_le_bytes).as_flattened());
    file.extend([0; 4]);
    let sizes = [HEADER_BYTES, SEGMENT_BYTES, n_segments, 0, 0, 0];
    for size in sizes {
        file.extend((size as u16).to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, words: [u64; 6]| {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        file.extend(words.map(u64::to_le_bytes).as_flattened());
    };
    segment(
        PT_NOTE,
        0,
        [at_notes as u64, 0, 0, notes.len() as u64, 0, 4],
    );
    let mut at = at_memory;
    for one in segments {
        let (start, in_file) = (one.range.start, one.file_bytes());
        let words = [at, start, 0, in_file, one.bytes(), PAGE_BYTES];
        segment(PT_LOAD, one.flags(), words);
        at += in_file;
    }
    (file, at_memory)
}

fn send(process: &Process, notes: &[u8], segments: &[Segment]) {
    let (mut beginning, at_memory) = headers(notes, segments);
    beginning.extend(notes);
    let bytes = segments
        .iter()
        .fold(at_memory, |sum, segment| sum + segment.file_bytes());
    let (job, pid) = (process.job, process.pid);
    line!("@core {job} {pid} begin {bytes}");
    pieces(process, 0, &beginning);
    let mut at = at_memory;
    for segment in segments.iter().filter(|segment| segment.file_bytes() > 0) {
        for virt in segment.range.clone().step_by(PAGE_BYTES as usize) {
            let mut page = alloc::vec![0; PAGE_BYTES as usize];
            process.with_space(|space| space.read_some(virt, &mut page));
            pieces(process, at, &page);
            at += PAGE_BYTES;
        }
    }
    line!("@core {job} {pid} end");
}

fn pieces(process: &Process, at: u64, bytes: &[u8]) {
    let (job, pid) = (process.job, process.pid);
    for (at, piece) in (at..).step_by(PIECE_BYTES).zip(bytes.chunks(PIECE_BYTES)) {
        if piece.iter().any(|byte| *byte != 0) {
            line!("@core {job} {pid} at {at} {}", Hex(piece));
        }
    }
}
