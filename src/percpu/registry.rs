//! [`Percpu`]: the kernel's CPUs and the areas of their data, from the first to those that come later.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

use super::error::{CpuError, InitError};
use super::header::Header;
use super::pcpu::{CpuState, Head, cpu_id};
use super::table::{CpuGroup, GROUP};
use super::zpcpu::{SLOT_BYTES, Zone};
use crate::kernel::CpuId;

/// What a CPU's area is aligned to, and so the most that a per-CPU variable may ask for: no two CPUs share a cache line.
pub const AREA_ALIGN: usize = 64;

/// The memory that [`Percpu::init`] is given for its tables; it lives as long as the kernel.
#[derive(Debug)]
pub struct Tables {
    /// One for each 64 CPU ids.
    pub groups: &'static [CpuGroup],
    /// One bit for each 8 bytes of zpcpu: [`Percpu::zpcpu_words`] numbers.
    pub zpcpu: &'static mut [u64],
}

/// The per-CPU data of a kernel. One static; made by [`percpu_header!`](crate::percpu_header).
///
/// A CPU is *absent* until [`add_cpu`](Self::add_cpu) gives it an area, then *present*, and *started* or *offline* as the kernel says. Ids may
/// have gaps: an absent CPU costs a bit and a number.
pub struct Percpu {
    header: &'static Header,
    /// The name of the `CpuPcu`, or null.
    pcu: *const u8,
    is_ready: AtomicBool,
    zone: Mutex<Zone>,
}

// SAFETY: the name of the `CpuPcu` is never followed; all else is shared by its own rules.
unsafe impl Sync for Percpu {}

impl Percpu {
    /// Takes the header, and the name of the `CpuPcu` if there is one.
    ///
    /// # Safety
    ///
    /// The kernel's only one. (Where a program plays several machines: tokens, variables and allocations of one are never used
    /// with those of another.) `pcu` is null or the name of a variable that is the CPU's `CpuPcu`.
    #[doc(hidden)]
    pub const unsafe fn new(header: &'static Header, pcu: *const u8) -> Self {
        Self {
            header,
            pcu,
            is_ready: AtomicBool::new(false),
            zone: Mutex::new(Zone::none()),
        }
    }

    /// The header, by which the data are read from outside.
    pub fn header(&self) -> &'static Header {
        self.header
    }

    /// How many numbers [`Tables::zpcpu`] needs for a stride.
    pub fn zpcpu_words(&self, stride: usize) -> usize {
        let slots = stride.saturating_sub(self.header.template_bytes()) / SLOT_BYTES;
        slots.div_ceil(64)
    }

    /// Begins: checks what the linker made of the section, and takes the tables. Each CPU's area will have `stride` bytes, and ids
    /// are below `max_cpus`.
    ///
    /// Context: once, before the first [`add_cpu`](Self::add_cpu).
    ///
    /// # Errors
    ///
    /// [`InitError`]; then nothing has happened.
    #[doc(alias = "dpcpu_init")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the tables are given up for good"
    )]
    pub fn init(&self, max_cpus: u16, stride: usize, tables: Tables) -> Result<(), InitError> {
        let mut zone = self.zone.lock();
        if self.is_ready.load(Ordering::Relaxed) {
            return Err(InitError::Twice);
        }
        self.header.check(stride)?;
        let n_groups = tables.groups.len();
        if usize::from(max_cpus.min(CpuId::LIMIT)) > n_groups * GROUP {
            return Err(InitError::TooFewGroups { max_cpus, n_groups });
        }
        let (words, needed) = (tables.zpcpu.len(), self.zpcpu_words(stride));
        if words < needed {
            return Err(InitError::ZpcpuTable { words, needed });
        }
        let start = self.header.template_start() + self.header.template_bytes();
        let end = self.header.template_start() + stride;
        *zone = Zone::new(start, end, tables.zpcpu);
        let max_cpus = max_cpus.min(CpuId::LIMIT);
        self.header.open(max_cpus, stride, start, tables.groups);
        self.is_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives CPU `cpu` its area: a copy of every variable's initial value, and zeros for zpcpu. The answer is what the CPU's own
    /// register must hold: see [`ThisCpu::offset`](super::ThisCpu::offset).
    ///
    /// # Errors
    ///
    /// [`CpuError`]; then nothing has happened.
    ///
    /// # Safety
    ///
    /// `area` is `stride` bytes that are writable and nobody else's, for as long as the CPU is present.
    #[doc(alias = "pcpu_init")]
    #[doc(alias = "set_pcpu")]
    pub unsafe fn add_cpu(&self, cpu: CpuId, area: NonNull<u8>) -> Result<usize, CpuError> {
        let _zone = self.zone.lock();
        let (group, place) = self.place(cpu)?;
        if group.state(place) != CpuState::Absent {
            return Err(CpuError::PresentAlready(cpu));
        }
        let at = area.as_ptr().expose_provenance();
        if !at.is_multiple_of(AREA_ALIGN) {
            return Err(CpuError::Misaligned { cpu, at });
        }
        let bytes = self.header.section_bytes();
        let template = self.header.template();
        // SAFETY: the template is constant; the area has room for it (`check`), and is nobody else's.
        unsafe { area.as_ptr().copy_from_nonoverlapping(template, bytes) };
        // SAFETY: as above.
        let rest = unsafe { area.as_ptr().add(bytes) };
        // SAFETY: as above: the rest of the area.
        unsafe { rest.write_bytes(0, self.header.stride() - bytes) };

        let offset = at.wrapping_sub(self.header.template_start());
        let head = self.head(offset);
        head.cpu.store(u32::from(cpu.number()), Ordering::Relaxed);
        head.offset.store(offset, Ordering::Relaxed);
        head.address
            .store((&raw const *head).addr(), Ordering::Relaxed);
        if !self.pcu.is_null() {
            let pcu = self.pcu.addr().wrapping_add(offset);
            head.pcu.store(pcu, Ordering::Relaxed);
        }
        self.change(|| {
            head.state
                .store(CpuState::Present as u32, Ordering::Relaxed);
            group.offsets[place].store(offset as u64, Ordering::Relaxed);
            group.set_state(place, CpuState::Present);
        });
        Ok(offset)
    }

    /// Notes that a CPU runs now, for the first time or again.
    ///
    /// # Errors
    ///
    /// [`CpuError`] for an absent CPU.
    pub fn set_started(&self, cpu: CpuId) -> Result<(), CpuError> {
        self.set_state(cpu, CpuState::Started)
    }

    /// Notes that a CPU runs no more. Its data stay: its counters count, and a reader sees what it left.
    ///
    /// # Errors
    ///
    /// [`CpuError`] for an absent CPU.
    pub fn set_offline(&self, cpu: CpuId) -> Result<(), CpuError> {
        self.set_state(cpu, CpuState::Offline)
    }

    /// Takes the area of a CPU that does not run back; the CPU is absent, and what it counted is lost. FreeBSD: `pcpu_destroy`.
    ///
    /// # Errors
    ///
    /// [`CpuError`] for an absent CPU, or one that is started.
    ///
    /// # Safety
    ///
    /// Nobody has a reference into the area, nor looks for one meanwhile.
    #[doc(alias = "pcpu_destroy")]
    pub unsafe fn remove_cpu(&self, cpu: CpuId) -> Result<NonNull<u8>, CpuError> {
        let _zone = self.zone.lock();
        let (group, place) = self.place(cpu)?;
        match group.state(place) {
            CpuState::Absent => return Err(CpuError::Absent(cpu)),
            CpuState::Started => return Err(CpuError::Runs(cpu)),
            CpuState::Present | CpuState::Offline => {}
        }
        let offset = group.offset(place).ok_or(CpuError::Absent(cpu))?;
        self.change(|| group.set_state(place, CpuState::Absent));
        let at = self.header.template_start().wrapping_add(offset);
        NonNull::new(core::ptr::with_exposed_provenance_mut(at)).ok_or(CpuError::Absent(cpu))
    }

    fn set_state(&self, cpu: CpuId, state: CpuState) -> Result<(), CpuError> {
        let _zone = self.zone.lock();
        let (group, place) = self.place(cpu)?;
        let offset = group.offset(place).ok_or(CpuError::Absent(cpu))?;
        let head = self.head(offset);
        self.change(|| {
            group.set_state(place, state);
            head.state.store(state as u32, Ordering::Relaxed);
        });
        Ok(())
    }

    /// What a CPU is.
    pub fn state(&self, cpu: CpuId) -> CpuState {
        self.place(cpu)
            .map_or(CpuState::Absent, |(group, place)| group.state(place))
    }

    /// Ids are below it. FreeBSD: `mp_maxcpus`.
    #[doc(alias = "mp_maxcpus")]
    pub fn max_cpus(&self) -> usize {
        self.header.max_cpus()
    }

    /// The CPUs that have data, in the order of their numbers. FreeBSD: `CPU_FOREACH`.
    #[doc(alias = "CPU_FOREACH")]
    pub fn present(&self) -> impl Iterator<Item = CpuId> + '_ {
        let ids = (0..self.max_cpus()).filter_map(cpu_id);
        ids.filter(|&cpu| self.state(cpu) != CpuState::Absent)
    }

    /// The CPUs that run.
    pub fn started(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.present()
            .filter(|&cpu| self.state(cpu) == CpuState::Started)
    }

    /// What to add to a name to get a CPU's address, `None` for an absent one. FreeBSD: `dpcpu_off[]`.
    #[doc(alias = "dpcpu_off")]
    pub fn offset(&self, cpu: CpuId) -> Option<usize> {
        let (group, place) = self.place(cpu).ok()?;
        group.offset(place)
    }

    /// The lock, and what it protects.
    pub(super) fn zone(&self) -> &Mutex<Zone> {
        &self.zone
    }

    /// The block of the CPU with that offset, without the kernel's own part.
    fn head(&self, offset: usize) -> &Head {
        let at = self.header.pcpu().wrapping_add(offset);
        let head = core::ptr::with_exposed_provenance::<Head>(at);
        // SAFETY: every area has a copy of the block, whose part before the extension is a `Head`, all of it atomic.
        unsafe { &*head }
    }

    fn place(&self, cpu: CpuId) -> Result<(&'static CpuGroup, usize), CpuError> {
        let group = (cpu.index() < self.max_cpus())
            .then(|| self.header.groups().get(cpu.index() / GROUP))
            .flatten();
        let group = group.ok_or(CpuError::TooLarge {
            cpu,
            max_cpus: self.max_cpus(),
        })?;
        Ok((group, cpu.index() % GROUP))
    }

    /// Changes the set of CPUs, under the lock: the generation is odd meanwhile.
    fn change(&self, f: impl FnOnce()) {
        self.header.generation.fetch_add(1, Ordering::AcqRel);
        f();
        self.header.generation.fetch_add(1, Ordering::Release);
    }
}

impl fmt::Debug for Percpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Percpu")
            .field("max_cpus", &self.max_cpus())
            .field("n_present", &self.present().count())
            .finish_non_exhaustive()
    }
}
