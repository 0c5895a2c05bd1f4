//! The fixed per-CPU block: [`Pcpu`]. FreeBSD: `struct pcpu`.

use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use static_assertions::const_assert_eq;

use super::access::{Symbol, ThisCpu};
use super::dpcpu::Dpcpu;
use crate::kernel::CpuId;

/// What the kernel keeps of every CPU: FreeBSD's `struct pcpu`, with LWPs of type `L` and the kernel's own part `E`.
///
/// It is a variable of [`dpcpu!`](crate::dpcpu) like any other, but one that [`percpu_header!`](crate::percpu_header) is told of. The CPU itself
/// writes its LWPs; the number, the state and the addresses are [`Percpu`](super::Percpu)'s.
///
/// | at | bytes | |
/// |---|---|---|
/// | 0 | 4 | the CPU's id |
/// | 4 | 4 | [`CpuState`] |
/// | 8 | 8 | current LWP |
/// | 16 | 8 | idle LWP |
/// | 24 | 8 | dynamic offset: what is added to a name |
/// | 32 | 8 | address of the block itself |
/// | 40 | 8 | address of the CPU's `CpuPcu`, wherever it lives; 0: none |
/// | 48 | | the kernel's own part, at its alignment |
#[doc(alias = "pcpu")]
///
/// It begins on a cache line of its own, which also aligns the section.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Pcpu<L, E = ()> {
    pub(super) cpu: AtomicU32,
    pub(super) state: AtomicU32,
    pub(super) current: AtomicPtr<L>,
    pub(super) idle: AtomicPtr<L>,
    pub(super) offset: AtomicUsize,
    pub(super) address: AtomicUsize,
    pub(super) pcu: AtomicUsize,
    /// The kernel's own part. FreeBSD: `PCPU_MD_FIELDS`.
    #[doc(alias = "PCPU_MD_FIELDS")]
    pub extension: E,
}

/// The part before the kernel's own.
pub(super) type Head = Pcpu<()>;
const_assert_eq!(offset_of!(Head, cpu), 0);
const_assert_eq!(offset_of!(Head, state), 4);
const_assert_eq!(offset_of!(Head, current), 8);
const_assert_eq!(offset_of!(Head, idle), 16);
const_assert_eq!(offset_of!(Head, offset), 24);
const_assert_eq!(offset_of!(Head, address), 32);
const_assert_eq!(offset_of!(Head, pcu), 40);
const_assert_eq!(offset_of!(Head, extension), 48);

const CPU: usize = offset_of!(Head, cpu);
const CURRENT: usize = offset_of!(Head, current);
/// Where [`ThisCpu::offset`] finds itself.
pub(crate) const OFFSET: usize = offset_of!(Head, offset);

/// What a CPU is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CpuState {
    /// It has no data; there need not be such a CPU.
    Absent = 0,
    /// It has its data and has not run yet.
    Present = 1,
    /// It runs.
    Started = 2,
    /// It ran, and does not now; its data are as it left them.
    Offline = 3,
}

impl<L, E> Pcpu<L, E> {
    /// The block of a CPU that is not there yet, with the initial value of the kernel's own part.
    pub const fn new(extension: E) -> Self {
        Self {
            cpu: AtomicU32::new(0),
            state: AtomicU32::new(CpuState::Absent as u32),
            current: AtomicPtr::new(core::ptr::null_mut()),
            idle: AtomicPtr::new(core::ptr::null_mut()),
            offset: AtomicUsize::new(0),
            address: AtomicUsize::new(0),
            pcu: AtomicUsize::new(0),
            extension,
        }
    }

    /// The CPU's number. FreeBSD: `pc_cpuid`.
    pub fn cpu(&self) -> u32 {
        self.cpu.load(Ordering::Relaxed)
    }

    /// The LWP that the CPU runs, as it last said. FreeBSD: `pc_curthread`.
    #[doc(alias = "pc_curthread")]
    pub fn current(&self) -> *mut L {
        self.current.load(Ordering::Acquire)
    }

    /// Notes the LWP that the CPU runs: for its scheduler.
    pub fn set_current(&self, lwp: *mut L) {
        self.current.store(lwp, Ordering::Release);
    }

    /// The LWP that the CPU runs when there is nothing else. FreeBSD: `pc_idlethread`.
    #[doc(alias = "pc_idlethread")]
    pub fn idle(&self) -> *mut L {
        self.idle.load(Ordering::Acquire)
    }

    /// Notes the CPU's idle LWP.
    pub fn set_idle(&self, lwp: *mut L) {
        self.idle.store(lwp, Ordering::Release);
    }
}

impl<L: 'static, E, S: Symbol> Dpcpu<Pcpu<L, E>, S> {
    /// The number of the executing CPU, in one step; true only while the caller is pinned. FreeBSD: `PCPU_GET(cpuid)`.
    #[doc(alias = "PCPU_GET")]
    pub fn this_cpu(&'static self, this: impl ThisCpu) -> u32 {
        // SAFETY: `S` names a block, and the field is there.
        unsafe { this.load::<S, AtomicU32, CPU>() }
    }

    /// The executing LWP, in one step, and so right even for a caller that may be moved. FreeBSD: `curthread`.
    #[doc(alias = "curthread")]
    pub fn this_lwp(&'static self, this: impl ThisCpu) -> *mut L {
        // SAFETY: as above.
        unsafe { this.load::<S, AtomicPtr<L>, CURRENT>() }
    }
}

/// The number as an id; a kernel has fewer CPUs than the location field of an LWP's word can tell apart.
pub(super) fn cpu_id(index: usize) -> Option<CpuId> {
    u16::try_from(index).ok().and_then(CpuId::new)
}
