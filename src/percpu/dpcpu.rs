//! Any static, made per-CPU: [`dpcpu!`](crate::dpcpu). FreeBSD: `DPCPU_DEFINE`.

use core::cell::UnsafeCell;
use core::marker::PhantomData;

use super::Percpu;
use super::access::{Number, Pinned, Symbol, ThisCpu, Word};
use crate::kernel::{CpuId, IplPcu, Kernel};

/// A variable of which every CPU has a copy of its own; made by [`dpcpu!`](crate::dpcpu).
///
/// The static itself holds the initial value and is never changed; its address is the variable's *name*. `S` is the type that stands for it.
#[repr(transparent)]
pub struct Dpcpu<T, S> {
    /// A cell, so that all variables are in writable sections of one kind.
    initial: UnsafeCell<T>,
    symbol: PhantomData<fn(S)>,
}

// SAFETY: the template is only copied; a CPU's copy is reached by `here` and `on`, which ask for `Sync`, or by `at_ipl`, where
// nobody else on the CPU runs.
unsafe impl<T: Send, S> Sync for Dpcpu<T, S> {}

impl<T, S: Symbol> Dpcpu<T, S> {
    #[doc(hidden)]
    pub const fn new(initial: T) -> Self {
        const {
            assert!(
                !core::mem::needs_drop::<T>(),
                "a CPU's copy is made byte by byte, so the type must not need a drop"
            );
        };
        Self {
            initial: UnsafeCell::new(initial),
            symbol: PhantomData,
        }
    }

    /// The address of the initial value, by which the variable is known; what is added to it is the CPU's offset.
    pub fn name(&'static self) -> usize {
        S::name()
    }

    fn at(offset: usize) -> *const T {
        core::ptr::with_exposed_provenance(S::name().wrapping_add(offset))
    }

    /// The address of this CPU's copy, for a caller that answers itself for staying on its CPU.
    pub fn this_copy(&'static self, this: impl ThisCpu) -> *const T {
        Self::at(this.offset())
    }

    /// This CPU's copy. FreeBSD: `DPCPU_PTR`.
    #[doc(alias = "DPCPU_PTR")]
    pub fn here<'a>(&'static self, pinned: &'a Pinned<'_>) -> &'a T
    where
        T: Sync,
    {
        // SAFETY: the token's CPU is present as long as the token exists, and its area holds a copy of every variable; `Sync`
        // allows what else runs there, and other CPUs, to look at it meanwhile.
        unsafe { &*Self::at(pinned.offset()) }
    }

    /// This CPU's copy, for a type that is not `Sync`, a `Cell` for instance: nothing else runs on this CPU until the level
    /// is lowered, and other CPUs cannot reach it.
    ///
    /// ```compile_fail,E0277
    /// # use core::cell::Cell;
    /// # use pcu9::percpu::Pinned;
    /// pcu9::dpcpu! { static DEPTH: Cell<u32> = Cell::new(0); }
    /// fn enter(pinned: &Pinned<'_>) {
    ///     DEPTH.here(pinned).set(1); // an interrupt may come between
    /// }
    /// ```
    pub fn at_ipl<'a, K: Kernel<N>, const N: usize>(
        &'static self,
        this: impl ThisCpu,
        _: &'a IplPcu<'_, K, N>,
    ) -> &'a T {
        // SAFETY: the CPU is the executing one until the token goes (P1), and no interrupt is served there, so all
        // references to its copy are in one context; without `Sync` there is no other way to it.
        unsafe { &*Self::at(this.offset()) }
    }

    /// CPU `cpu`'s copy, `None` for one that is absent. FreeBSD: `DPCPU_ID_PTR`.
    ///
    /// ```compile_fail,E0277
    /// # use core::cell::Cell;
    /// # use pcu9::{kernel::CpuId, percpu::Percpu};
    /// pcu9::dpcpu! { static DEPTH: Cell<u32> = Cell::new(0); }
    /// fn spy(percpu: &Percpu, cpu: CpuId) {
    ///     DEPTH.on(percpu, cpu); // its own CPU may be writing
    /// }
    /// ```
    #[doc(alias = "DPCPU_ID_PTR")]
    pub fn on<'a>(&'static self, percpu: &'a Percpu, cpu: CpuId) -> Option<&'a T>
    where
        T: Sync,
    {
        let offset = percpu.offset(cpu)?;
        // SAFETY: a present CPU's area holds a copy of every variable, and `remove` was promised that nobody looks.
        Some(unsafe { &*Self::at(offset) })
    }
}

impl<W: Word, S: Symbol> Dpcpu<W, S> {
    /// Reads this CPU's word, in one step. FreeBSD: `DPCPU_GET`.
    #[doc(alias = "DPCPU_GET")]
    pub fn get(&'static self, this: impl ThisCpu) -> W::Value {
        // SAFETY: `S` names a `W`.
        unsafe { this.load::<S, W, 0>() }
    }

    /// Writes this CPU's word, in one step. FreeBSD: `DPCPU_SET`.
    #[doc(alias = "DPCPU_SET")]
    pub fn set(&'static self, this: impl ThisCpu, value: W::Value) {
        // SAFETY: `S` names a `W`.
        unsafe { this.store::<S, W, 0>(value) };
    }
}

impl<W: Number, S: Symbol> Dpcpu<W, S> {
    /// Adds to this CPU's word, in one step; it wraps. What other contexts of this CPU add meanwhile is not lost; what *other CPUs*
    /// write to this copy may be.
    pub fn add(&'static self, this: impl ThisCpu, n: W::Value) {
        // SAFETY: `S` names a `W`.
        unsafe { this.add::<S, W, 0>(n) };
    }

    /// Adds one to this CPU's word: a single instruction on x86-64, operands and all.
    pub fn increment(&'static self, this: impl ThisCpu) {
        // SAFETY: `S` names a `W`.
        unsafe { this.increment::<S, W, 0>() };
    }

    /// The wrapping sum over all present CPUs. FreeBSD: `DPCPU_SUM`.
    #[doc(alias = "DPCPU_SUM")]
    pub fn sum(&'static self, percpu: &Percpu) -> W::Value {
        percpu
            .present()
            .filter_map(|cpu| self.on(percpu, cpu))
            .fold(W::from_bits(0), |sum, word| {
                W::wrapping_sum(sum, word.load())
            })
    }
}

impl<T, S: Symbol> core::fmt::Debug for Dpcpu<T, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Dpcpu({:#x})", S::name())
    }
}

/// Makes statics per-CPU: every CPU starts with a copy of the initial value. FreeBSD: `DPCPU_DEFINE`.
///
/// `static` gives a [`Dpcpu`](crate::percpu::Dpcpu) of any type that can be copied byte by byte; `counter` one of an `AtomicU64` that the
/// header lists as a counter (FreeBSD: `COUNTER_U64_DEFINE_EARLY`).
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// pcu9::dpcpu! {
///     /// Ticks of the timer.
///     pub static TICKS: AtomicU64 = AtomicU64::new(0);
///     /// Pages handed out.
///     pub counter PAGES;
/// }
/// fn tick(this: impl pcu9::percpu::ThisCpu) {
///     TICKS.increment(this);
///     PAGES.add(this, 3);
/// }
/// ```
///
/// What needs a drop cannot be per-CPU, since it is copied byte by byte:
///
/// ```compile_fail,E0080
/// pcu9::dpcpu! { static NAMES: Vec<u8> = Vec::new(); }
/// ```
#[doc(alias = "COUNTER_U64_DEFINE_EARLY")]
#[doc(alias = "DPCPU_DEFINE")]
#[macro_export]
macro_rules! dpcpu {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $initial:expr; $($rest:tt)*) => {
        $crate::dpcpu!(@ Variable, $(#[$meta])* $vis $name: $type = $initial, stringify!($type));
        $crate::dpcpu!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis counter $name:ident; $($rest:tt)*) => {
        $crate::dpcpu!(@ Counter, $(#[$meta])* $vis $name: ::core::sync::atomic::AtomicU64
            = ::core::sync::atomic::AtomicU64::new(0), "AtomicU64");
        $crate::dpcpu!($($rest)*);
    };
    (@ $kind:ident, $(#[$meta:meta])* $vis:vis $name:ident: $type:ty = $initial:expr, $type_name:expr) => {
        $(#[$meta])*
        #[expect(non_camel_case_types, reason = "the variable's name, as a type")]
        #[derive(Debug)]
        $vis enum $name {}

        $(#[$meta])*
        #[unsafe(link_section = "set_pcpu")]
        $vis static $name: $crate::percpu::Dpcpu<$type, $name> = $crate::percpu::Dpcpu::new($initial);

        // SAFETY: the name is the variable's, and so is the symbol of the instructions.
        unsafe impl $crate::percpu::Symbol for $name {
            #[inline]
            fn name() -> usize {
                (&raw const $name).addr()
            }
            $crate::gs_instructions! { $name }
        }

        const _: () = {
            #[used]
            #[unsafe(link_section = "set_pcu9_desc")]
            static DESCRIPTOR: $crate::percpu::descriptor::Descriptor =
                $crate::percpu::descriptor::Descriptor::new::<$type>(
                    $crate::percpu::descriptor::Kind::$kind,
                    concat!(module_path!(), "::", stringify!($name)),
                    $type_name,
                    (&raw const $name).cast(),
                );
        };
    };
}
