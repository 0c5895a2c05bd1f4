//! Where per-CPU data live: the block of each CPU behind `gs`, what `pcu9` keeps of it, and the header for readers outside.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64};

use pcu9::kernel::CpuId;
use pcu9::pcu::CpuPcu;
use pcu9::percpu::header::{AreaFormat, AreaPlace, FpuLayout, LwpLayout};
use pcu9::percpu::{AREA_ALIGN, CounterU64, CpuGroup, Late, Pcpu, Tables, Translation};
use pcu9::x86_64::Gs;
use pcu9::x86_64::fpu::{self, Format};
use pcu9::{dpcpu, percpu_header};

use super::N_UNITS;
use crate::cpu::Cpu;
use crate::lwp::{self, LABEL_BYTES, Lwp};
use crate::memory;

/// Processes made by fork.
pub static FORKS: Late<CounterU64> = Late::new();

dpcpu! {
    /// The block of each CPU.
    pub static PCPU: Pcpu<Lwp, Cpu> = Pcpu::new(Cpu::new());
    /// What `pcu9` keeps of each CPU.
    pub static CPU_PCU: CpuPcu<Lwp, N_UNITS> = CpuPcu::new();
    /// Interrupts and exceptions, but no system calls.
    pub counter TRAPS;
    /// System calls.
    pub counter SYSCALLS;
    /// Interrupts of the timer.
    pub counter TICKS;
    /// LWPs that started over in a new protection domain.
    pub counter EXECS;
    /// LWPs that ended.
    pub counter EXITS;
    /// Signals for which a handler began.
    pub counter SIGNALS;
}

pcu9::percpu_describe! {
    pcpu Pcpu<Lwp, Cpu>: extension.counters.switches: AtomicU64;
    pcpu Pcpu<Lwp, Cpu>: extension.counters.migrations: AtomicU64;
    pcpu Pcpu<Lwp, Cpu>: extension.counters.preemptions: AtomicU64;
    lwp Lwp: last_cpu: AtomicU32;
    counter FORKS;
}

percpu_header! {
    /// The kernel's per-CPU data.
    pub static PERCPU;
    block: PCPU: Pcpu<Lwp, Cpu>;
    pcu: CPU_PCU: (Lwp, N_UNITS), units: "fpu\n";
    lwp: LwpLayout {
        list: (&raw const lwp::FIRST).cast(),
        next: offset_of!(Lwp, next) as u32,
        pcu: offset_of!(Lwp, fpu.pcu) as u32,
        number: offset_of!(Lwp, number) as u32,
        bytes: size_of::<Lwp>() as u32,
        name: offset_of!(Lwp, label) as u32,
        name_bytes: LABEL_BYTES as u32,
    };
    fpu: FpuLayout::new(0, AreaPlace::Pointer, offset_of!(Lwp, fpu.area) as u32);
}

/// The executing CPU.
// SAFETY: `PCPU` is the header's block; `cpu::enter` sets GS.base before anything uses this, traps bring it back on the way in
// from user mode, and no CPU is ever removed.
pub const HERE: Gs<PCPU> = unsafe { Gs::assume() };

/// Ids are below it: more than the machine ever has, so that tests can add CPUs that do not run.
const MAX_CPUS: u16 = 128;
/// Bytes of each CPU's area.
const STRIDE: usize = 16 << 10;

unsafe extern "C" {
    // Symbols of `kernel.ld`; their addresses are the values.
    static build_id_phys: u8;
    static build_id_end_phys: u8;
}

/// Begins; once, before the first CPU.
///
/// # Panics
///
/// When the linker script, or a number above, is wrong: the message says what.
pub(crate) fn init() {
    let words = PERCPU.zpcpu_words(STRIDE);
    let tables = Tables {
        groups: Box::leak(Box::new(
            [const { CpuGroup::new() }; MAX_CPUS.div_ceil(64) as usize],
        )),
        zpcpu: alloc::vec![0; words].leak(),
    };
    if let Err(error) = PERCPU.init(MAX_CPUS, STRIDE, tables) {
        panic!("{error}");
    }
    let header = PERCPU.header();
    header.set_translation(Translation {
        root_table: memory::paging::kernel_table(),
        levels: 4,
        direct_map: memory::DIRECT_MAP,
        direct_map_bytes: memory::direct_map_bytes(),
        image_bias: memory::paging::KERNEL_BASE,
    });
    header.set_build_id(build_id());
}

/// Gives CPU `cpu` its area; what its GS.base must be.
///
/// # Panics
///
/// When it has one already.
pub fn add_cpu(cpu: CpuId) -> usize {
    let layout = Layout::from_size_align(STRIDE, AREA_ALIGN).expect("an area is small");
    // SAFETY: the size is not 0.
    let area = NonNull::new(unsafe { alloc_zeroed(layout) });
    add_cpu_at(cpu, area.unwrap_or_else(|| handle_alloc_error(layout)))
}

/// As [`add_cpu`], with an area at the end of the physical memory, as far from the kernel as can be; where that is.
///
/// # Panics
///
/// When it has one already, or there is no memory.
pub fn add_cpu_at_the_end(cpu: CpuId) -> u64 {
    let n_frames = (STRIDE as u64).div_ceil(memory::PAGE_BYTES);
    let phys = memory::frames::allocate_at_the_end(n_frames).expect("memory at the end");
    let area = NonNull::new(memory::direct_map(phys)).expect("an address");
    add_cpu_at(cpu, area);
    phys
}

/// Gives CPU `cpu` an area that nobody else has, and that is never freed.
fn add_cpu_at(cpu: CpuId, area: NonNull<u8>) -> usize {
    // SAFETY: both callers made memory of that size for it.
    match unsafe { PERCPU.add_cpu(cpu, area) } {
        Ok(offset) => offset,
        Err(error) => panic!("{error}"),
    }
}

/// Allocates what is counted without a variable of its own; once the first CPU is there.
///
/// # Panics
///
/// Without room for it.
pub(crate) fn allocate_counters() {
    if let Err(error) = FORKS.alloc(&PERCPU) {
        panic!("{error}");
    }
}

/// Says what saved FPU states look like; once the first CPU's FPU has been detected.
pub(crate) fn describe_fpu() {
    let features = fpu::features();
    let format = match features.save_instruction().format() {
        Format::Legacy => AreaFormat::Fxsave,
        Format::Standard => AreaFormat::Standard,
        Format::Compacted => AreaFormat::Compacted,
    };
    let bytes = features.area_bytes() as u32;
    PERCPU.header().set_fpu_area(format, bytes, features.xcr0());
}

/// The id in the image's note: four numbers (lengths, type, `GNU`), then the bytes.
fn build_id() -> &'static [u8] {
    let phys = |symbol: *const u8| symbol.addr() as u64;
    let (start, end) = (
        phys(&raw const build_id_phys) + 16,
        phys(&raw const build_id_end_phys),
    );
    let bytes = memory::direct_map::<u8>(start);
    // SAFETY: the symbols enclose the note, which is constant, in the image.
    unsafe { core::slice::from_raw_parts(bytes, end.saturating_sub(start) as usize) }
}
