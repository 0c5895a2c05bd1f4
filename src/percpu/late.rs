//! Allocations in statics, and names for what is no variable of [`dpcpu!`](crate::dpcpu): [`Late`], [`percpu_describe!`](crate::percpu_describe).

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Percpu;
use super::counter::CounterU64;
use super::error::NoRoom;

/// A static's place for a counter that is allocated once, later; [`percpu_describe!`](crate::percpu_describe) makes it known to readers.
///
/// ```
/// # use pcu9::percpu::{CounterU64, Late, Percpu, ThisCpu};
/// static PACKETS: Late<CounterU64> = Late::new();
/// fn packet(this: impl ThisCpu) {
///     if let Some(packets) = PACKETS.get() {
///         packets.add(this, 1);
///     }
/// }
/// ```
#[repr(transparent)]
pub struct Late<T> {
    /// The allocation's name; 0 before.
    name: AtomicUsize,
    allocation: PhantomData<fn() -> T>,
}

impl<T> Late<T> {
    /// A place with nothing in it.
    pub const fn new() -> Self {
        Self {
            name: AtomicUsize::new(0),
            allocation: PhantomData,
        }
    }
}

impl Late<CounterU64> {
    /// Allocates, unless somebody has.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] in the areas.
    pub fn alloc(&self, percpu: &Percpu) -> Result<&CounterU64, NoRoom> {
        if self.get().is_none() {
            let counter = CounterU64::alloc(percpu)?;
            let (order, late) = (Ordering::AcqRel, Ordering::Acquire);
            if self
                .name
                .compare_exchange(0, counter.name(), order, late)
                .is_err()
            {
                counter.free(percpu);
            }
        }
        self.get().ok_or(NoRoom { bytes: 8 })
    }

    /// The counter, once it is allocated.
    pub fn get(&self) -> Option<&CounterU64> {
        let counter = (&raw const self.name).cast::<CounterU64>();
        // SAFETY: a `CounterU64` is its name, transparently; a name that is not 0 was left by `alloc`, and is never changed.
        (self.name.load(Ordering::Acquire) != 0).then(|| unsafe { &*counter })
    }
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Late<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Late({:#x})", self.name.load(Ordering::Relaxed))
    }
}

/// Lists things in the header that are no variables of [`dpcpu!`](crate::dpcpu): fields of the block, fields of an LWP, and counters
/// that are allocated later.
///
/// ```
/// # use core::sync::atomic::AtomicU64;
/// # use pcu9::percpu::{CounterU64, Late, Pcpu};
/// struct Machine { switches: AtomicU64 }
/// struct Lwp { priority: u32 }
/// static PACKETS: Late<CounterU64> = Late::new();
///
/// pcu9::percpu_describe! {
///     pcpu Pcpu<Lwp, Machine>: extension.switches: AtomicU64;
///     lwp Lwp: priority: u32;
///     counter PACKETS;
/// }
/// ```
#[macro_export]
macro_rules! percpu_describe {
    () => {};
    (pcpu $block:ty: $($field:ident).+: $type:ty; $($rest:tt)*) => {
        $crate::percpu_describe!(@ PcpuField, $block, $($field).+, $type);
        $crate::percpu_describe!($($rest)*);
    };
    (lwp $lwp:ty: $($field:ident).+: $type:ty; $($rest:tt)*) => {
        $crate::percpu_describe!(@ LwpField, $lwp, $($field).+, $type);
        $crate::percpu_describe!($($rest)*);
    };
    (counter $late:ident; $($rest:tt)*) => {
        const _: () = {
            const NAMED: &$crate::percpu::Late<$crate::percpu::CounterU64> = &$late;
            #[used]
            #[unsafe(link_section = "set_pcu9_desc")]
            static DESCRIPTOR: $crate::percpu::descriptor::Descriptor =
                $crate::percpu::descriptor::Descriptor::new::<u64>(
                    $crate::percpu::descriptor::Kind::CounterHandle,
                    concat!(module_path!(), "::", stringify!($late)),
                    "CounterU64",
                    ::core::ptr::from_ref(NAMED).cast(),
                );
        };
        $crate::percpu_describe!($($rest)*);
    };
    (@ $kind:ident, $of:ty, $($field:ident).+, $type:ty) => {
        const _: () = {
            // The field has the type that the header says.
            const _: fn(&$of) -> &$type = |it| &it.$($field).+;
            #[used]
            #[unsafe(link_section = "set_pcu9_desc")]
            static DESCRIPTOR: $crate::percpu::descriptor::Descriptor =
                $crate::percpu::descriptor::Descriptor::new::<$type>(
                    $crate::percpu::descriptor::Kind::$kind,
                    stringify!($($field).+),
                    stringify!($type),
                    ::core::ptr::without_provenance(::core::mem::offset_of!($of, $($field).+)),
                );
        };
    };
}
