//! How the kernel fills in its header: [`percpu_header!`](crate::percpu_header) at compile time, [`Percpu::init`](super::Percpu::init) and the
//! calls here at run time.

use core::ptr::from_ref;
use core::sync::atomic::Ordering;

use super::descriptor::Descriptor;
use super::error::InitError;
use super::header::{AreaFormat, Header};
use super::pcpu::Head;
use super::registry::AREA_ALIGN;
use super::table::CpuGroup;

/// How virtual addresses become physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of a top-level page table that maps the kernel, and stays.
    pub root_table: u64,
    /// Levels of page tables: 4 or 5.
    pub levels: u32,
    /// The address at which physical address 0 appears.
    pub direct_map: u64,
    /// Bytes of the direct map; 0 if there is none.
    pub direct_map_bytes: u64,
    /// Virtual minus physical address of the kernel's image.
    pub image_bias: u64,
}

impl Header {
    /// Says how virtual addresses become physical ones, for a reader that has physical memory alone.
    pub fn set_translation(&self, translation: Translation) {
        let Translation {
            root_table,
            levels,
            direct_map,
            direct_map_bytes,
            image_bias,
        } = translation;
        self.levels.store(levels, Ordering::Relaxed);
        self.direct_map.store(direct_map, Ordering::Relaxed);
        self.direct_map_bytes
            .store(direct_map_bytes, Ordering::Relaxed);
        self.image_bias.store(image_bias, Ordering::Relaxed);
        self.root_table.store(root_table, Ordering::Release);
    }

    /// Says what a saved FPU state looks like, once that is detected.
    pub fn set_fpu_area(&self, format: AreaFormat, area_bytes: u32, xcr0: u64) {
        self.fpu.area_bytes.store(area_bytes, Ordering::Relaxed);
        self.fpu.xcr0.store(xcr0, Ordering::Relaxed);
        self.fpu.format.store(format as u32, Ordering::Release);
    }

    /// Keeps the build id of the kernel's ELF file, so that a reader notices a file of another build. Of a longer one the first 32
    /// bytes count.
    pub fn set_build_id(&self, build_id: &[u8]) {
        let mut n_bytes = 0;
        for (to, &from) in self.build_id.iter().zip(build_id) {
            to.store(from, Ordering::Relaxed);
            n_bytes += 1;
        }
        self.build_id_bytes.store(n_bytes, Ordering::Release);
    }

    /// What is described: the variables, counters and fields with a name.
    pub fn descriptors(&self) -> &'static [Descriptor] {
        let bytes = self
            .descriptors_stop
            .addr()
            .saturating_sub(self.descriptors.addr());
        let at =
            core::ptr::with_exposed_provenance::<Descriptor>(self.descriptors.expose_provenance());
        // SAFETY: the linker put the descriptors of the set one after the other between the two symbols; they are constant.
        unsafe { core::slice::from_raw_parts(at, bytes / size_of::<Descriptor>()) }
    }

    /// Is the section what the linker should have made of it, and does it fit into areas of `stride` bytes?
    pub(super) fn check(&self, stride: usize) -> Result<(), InitError> {
        let (start, stop) = (self.template_start(), self.template_stop.addr());
        let block = self.pcpu()..self.pcpu() + size_of::<Head>();
        if block.start < start || block.end > stop {
            return Err(InitError::SectionMissing { start, stop });
        }
        if !start.is_multiple_of(AREA_ALIGN) {
            return Err(InitError::Misaligned { start });
        }
        for variable in self.descriptors().iter().filter(|it| it.is_dpcpu()) {
            let (name, at) = (variable.name(), variable.at.addr());
            if at < start || at + variable.bytes > stop {
                return Err(InitError::Outside { name, at });
            }
            let align = variable.align as usize;
            if align > AREA_ALIGN {
                return Err(InitError::Alignment { name, align });
            }
        }
        let needed = self.template_bytes();
        if stride < needed || !stride.is_multiple_of(AREA_ALIGN) {
            return Err(InitError::Stride { stride, needed });
        }
        Ok(())
    }

    pub(super) fn open(
        &self,
        max_cpus: u16,
        stride: usize,
        zpcpu_start: usize,
        groups: &'static [CpuGroup],
    ) {
        self.stride.store(stride as u64, Ordering::Relaxed);
        self.zpcpu_start
            .store(zpcpu_start as u64, Ordering::Relaxed);
        let table = groups.as_ptr().cast_mut();
        table.expose_provenance();
        self.groups.store(table, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 256 groups have ids"
        )]
        self.n_groups.store(groups.len() as u32, Ordering::Release);
        self.max_cpus.store(u32::from(max_cpus), Ordering::Release);
        self.address
            .store(from_ref(self).addr() as u64, Ordering::Release);
    }

    pub(super) fn groups(&self) -> &'static [CpuGroup] {
        let n_groups = self.n_groups.load(Ordering::Acquire) as usize;
        if n_groups == 0 {
            return &[];
        }
        // SAFETY: `open` stored both of one `&'static` slice, the number last.
        unsafe { core::slice::from_raw_parts(self.groups.load(Ordering::Relaxed), n_groups) }
    }

    pub(super) fn max_cpus(&self) -> usize {
        self.max_cpus.load(Ordering::Acquire) as usize
    }

    pub(super) fn stride(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the module is for 64-bit machines"
        )]
        let stride = self.stride.load(Ordering::Relaxed) as usize;
        stride
    }

    pub(super) fn template(&self) -> *const u8 {
        core::ptr::with_exposed_provenance(self.template_start.expose_provenance())
    }

    pub(super) fn template_start(&self) -> usize {
        self.template_start.addr()
    }

    /// What the linker put between the symbols.
    pub(super) fn section_bytes(&self) -> usize {
        self.template_stop
            .addr()
            .saturating_sub(self.template_start())
    }

    /// The same, up to where zpcpu begins.
    pub(super) fn template_bytes(&self) -> usize {
        self.section_bytes().next_multiple_of(AREA_ALIGN)
    }

    pub(super) fn pcpu(&self) -> usize {
        self.pcpu.addr()
    }
}

/// Defines the kernel's [`Percpu`](crate::percpu::Percpu) and the header that describes it to readers outside, with its ELF note. Once in a
/// kernel.
///
/// ```
/// # use core::sync::atomic::AtomicU64;
/// use pcu9::pcu::{CpuPcu, LwpPcu};
/// use pcu9::percpu::Pcpu;
/// use pcu9::percpu::header::{AreaPlace, FpuLayout, LwpLayout};
///
/// struct Machine { interrupts: AtomicU64 }
/// struct Lwp { pcu: LwpPcu<1>, area: *mut u8 }
///
/// pcu9::dpcpu! {
///     /// The block of each CPU.
///     pub static PCPU: Pcpu<Lwp, Machine> = Pcpu::new(Machine { interrupts: AtomicU64::new(0) });
///     /// What `pcu9` keeps of each CPU.
///     pub static CPU_PCU: CpuPcu<Lwp, 1> = CpuPcu::new();
/// }
/// pcu9::percpu_header! {
///     /// The per-CPU data.
///     pub static PERCPU;
///     block: PCPU: Pcpu<Lwp, Machine>;
///     pcu: CPU_PCU: (Lwp, 1), units: "fpu\n"; // or: pcu: none;
///     lwp: LwpLayout {
///         pcu: core::mem::offset_of!(Lwp, pcu) as u32,
///         bytes: size_of::<Lwp>() as u32,
///         ..LwpLayout::NONE
///     };
///     fpu: FpuLayout::new(0, AreaPlace::Pointer, core::mem::offset_of!(Lwp, area) as u32);
/// }
/// ```
#[macro_export]
macro_rules! percpu_header {
    (
        $(#[$meta:meta])* $vis:vis static $percpu:ident;
        block: $block:ident: $block_type:ty;
        pcu: $($pcu:ident)::+ $(: ($lwp:ty, $n:expr), units: $units:expr)?;
        lwp: $lwp_layout:expr;
        fpu: $fpu_layout:expr;
    ) => {
        $(#[$meta])*
        // SAFETY: the symbol of the header can be defined but once in a kernel, and so is what uses it.
        $vis static $percpu: $crate::percpu::Percpu = unsafe {
            $crate::percpu::Percpu::new(&PCU9_HEADER, $crate::percpu_parts!(@ pcu $($pcu)::+))
        };

        #[unsafe(export_name = "pcu9_header")]
        static PCU9_HEADER: $crate::percpu::header::Header = $crate::percpu::header::Header::new(
            $crate::percpu_parts! {
                block: $block: $block_type;
                pcu: $($pcu)::+ $(: ($lwp, $n), units: $units)?;
                lwp: $lwp_layout;
                fpu: $fpu_layout;
            }
        );

        const _: () = {
            #[used]
            #[unsafe(link_section = ".note.pcu9")]
            static NOTE: $crate::percpu::header::Note =
                $crate::percpu::header::Note::new(&raw const PCU9_HEADER);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! percpu_parts {
    (
        block: $block:ident: $block_type:ty;
        pcu: $($pcu:ident)::+ $(: ($lwp:ty, $n:expr), units: $units:expr)?;
        lwp: $lwp_layout:expr;
        fpu: $fpu_layout:expr;
    ) => {{
        unsafe extern "C" {
            // The linker's: the ends of the two sets.
            static __start_set_pcpu: u8;
            static __stop_set_pcpu: u8;
            static __start_set_pcu9_desc: $crate::percpu::descriptor::Descriptor;
            static __stop_set_pcu9_desc: $crate::percpu::descriptor::Descriptor;
        }
        $crate::percpu::header::Parts {
            template: (&raw const __start_set_pcpu, &raw const __stop_set_pcpu),
            descriptors: (&raw const __start_set_pcu9_desc, &raw const __stop_set_pcu9_desc),
            pcpu: (&raw const $block).cast(),
            pcpu_bytes: size_of::<$block_type>(),
            extension: ::core::mem::offset_of!($block_type, extension),
            extension_bytes: size_of::<$block_type>()
                - ::core::mem::offset_of!($block_type, extension),
            pcu: $crate::percpu_parts!(@ layout $($lwp, $n)?),
            unit_names: concat!($($units)?),
            lwp: $lwp_layout,
            fpu: $fpu_layout,
        }
    }};
    (@ layout) => { $crate::percpu::header::NO_UNITS };
    (@ layout $lwp:ty, $n:expr) => { $crate::pcu::Layout::of::<$lwp, { $n }>() };
    (@ pcu none) => { ::core::ptr::null() };
    (@ pcu $pcu:path) => { (&raw const $pcu).cast() };
}
