//! The way from the executing CPU to its own data: [`ThisCpu`], and the token [`Pinned`].
//!
//! Two kinds of access need no token, since each is one step that no interrupt and no migration can split: reading, writing and
//! adding to a machine word ([`Word`]). Everything else hands out a reference, and a reference to *this CPU's* copy is
//! right only as long as the caller stays there; so it borrows a [`Pinned`], which proves that preemption is off.

use core::marker::PhantomData;
use core::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16,
    AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use crate::kernel::{IplPcu, Kernel};

/// The executing CPU, as a way to its own data. On x86-64 this is [`Gs`](crate::x86_64::Gs); a machine without such a register
/// gives [`offset`](Self::offset) alone and gets the rest.
///
/// # Safety
///
/// - **C1** [`offset`](Self::offset) is the dynamic offset of the CPU that executes the call, as
///   [`Percpu::add_cpu`](super::Percpu::add_cpu) gave it.
/// - **C2** `load`, `store` and `add`, and their forms `_at`, each do their work on one CPU's copy, on which the caller was at
///   some moment of the call; no interrupt of that CPU, and no other `add` to that copy, comes in between.
pub unsafe trait ThisCpu: Copy {
    /// What to add to a name to get this CPU's address; true only while the caller is pinned. FreeBSD: `PCPU_GET(dynamic)`.
    fn offset(self) -> usize;

    /// Reads the word that lies `AT` bytes into this CPU's copy of `S`.
    ///
    /// # Safety
    ///
    /// A `W` lies there.
    unsafe fn load<S: Symbol, W: Word, const AT: usize>(self) -> W::Value {
        // SAFETY: promised by the caller.
        unsafe { self.load_at::<W>(S::name() + AT) }
    }

    /// Writes the word that lies `AT` bytes into this CPU's copy of `S`.
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    unsafe fn store<S: Symbol, W: Word, const AT: usize>(self, value: W::Value) {
        // SAFETY: promised by the caller.
        unsafe { self.store_at::<W>(S::name() + AT, value) };
    }

    /// Adds to the word that lies `AT` bytes into this CPU's copy of `S`; it wraps.
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    unsafe fn add<S: Symbol, W: Number, const AT: usize>(self, n: W::Value) {
        // SAFETY: promised by the caller.
        unsafe { self.add_at::<W>(S::name() + AT, n) };
    }

    /// Adds one; as [`add`](Self::add).
    ///
    /// # Safety
    ///
    /// As [`load`](Self::load).
    unsafe fn increment<S: Symbol, W: Number, const AT: usize>(self) {
        // SAFETY: promised by the caller.
        unsafe { self.add_at::<W>(S::name() + AT, W::ONE) };
    }

    /// Reads this CPU's word with that name.
    ///
    /// # Safety
    ///
    /// Every present CPU has a `W` there.
    unsafe fn load_at<W: Word>(self, name: usize) -> W::Value {
        // SAFETY: a migration in between leads to another CPU's word, which is one too.
        unsafe { word::<W>(name, self.offset()) }.load()
    }

    /// Writes this CPU's word with that name.
    ///
    /// # Safety
    ///
    /// As [`load_at`](Self::load_at).
    unsafe fn store_at<W: Word>(self, name: usize, value: W::Value) {
        // SAFETY: as for `load_at`.
        unsafe { word::<W>(name, self.offset()) }.store(value);
    }

    /// Adds to this CPU's word with that name; it wraps.
    ///
    /// # Safety
    ///
    /// As [`load_at`](Self::load_at).
    unsafe fn add_at<W: Number>(self, name: usize, n: W::Value) {
        // SAFETY: as for `load_at`; the addition is atomic, so nothing is lost on whichever copy it is done to.
        unsafe { word::<W>(name, self.offset()) }.add(n);
    }
}

/// The word with that name of the CPU with that offset.
///
/// # Safety
///
/// The CPU is present and stays so, and has a `W` there.
unsafe fn word<'a, W>(name: usize, offset: usize) -> &'a W {
    let at = core::ptr::with_exposed_provenance::<W>(name.wrapping_add(offset));
    // SAFETY: promised by the caller; `add_cpu` exposed the area.
    unsafe { &*at }
}

/// A variable of [`dpcpu!`](crate::dpcpu) as a type, so that its address is a constant of the instruction that uses it.
///
/// # Safety
///
/// Implemented by [`dpcpu!`](crate::dpcpu) alone: [`name`](Self::name) is the address of the variable, and the instructions of
/// `gs_*` name it.
#[doc(hidden)]
pub unsafe trait Symbol: 'static {
    /// The variable's address in the template.
    fn name() -> usize;

    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn gs_load<const AT: usize>(bytes: usize) -> u64;

    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn gs_store<const AT: usize>(bytes: usize, value: u64);

    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn gs_add<const AT: usize>(bytes: usize, n: u64);

    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    unsafe fn gs_inc<const AT: usize>(bytes: usize);
}

/// A machine word that its CPU reads and writes in one step: the atomic integers and pointers.
///
/// They are atomic because other CPUs look at them; the own CPU needs no locked instruction.
pub trait Word: sealed::Sealed + Sync + 'static {
    /// What the word holds.
    type Value: Copy;
    #[doc(hidden)]
    fn to_bits(value: Self::Value) -> u64;
    #[doc(hidden)]
    fn from_bits(bits: u64) -> Self::Value;
    #[doc(hidden)]
    fn load(&self) -> Self::Value;
    #[doc(hidden)]
    fn store(&self, value: Self::Value);
}

/// A word that can be added to.
pub trait Number: Word {
    #[doc(hidden)]
    const ONE: Self::Value;
    #[doc(hidden)]
    fn add(&self, n: Self::Value);
    #[doc(hidden)]
    fn wrapping_sum(a: Self::Value, b: Self::Value) -> Self::Value;
}

/// A type whose value may be all zero bytes: what a zpcpu allocation begins with, on CPUs of today and of tomorrow.
///
/// # Safety
///
/// Zero bytes are a valid value that needs no drop.
pub unsafe trait Zeroable: Sync + 'static {}

// SAFETY: element by element.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($atomic:ident: $value:ident as $unsigned:ident;)*) => { $(
        impl sealed::Sealed for $atomic {}
        // SAFETY: zero is a number.
        unsafe impl Zeroable for $atomic {}

        impl Word for $atomic {
            type Value = $value;
            #[expect(clippy::allow_attributes, reason = "what is lossless depends on the type")]
            #[allow(
                clippy::cast_sign_loss, clippy::cast_lossless, clippy::unnecessary_cast, trivial_numeric_casts,
                reason = "bits of the same width"
            )]
            fn to_bits(value: $value) -> u64 {
                value as $unsigned as u64
            }
            #[expect(clippy::allow_attributes, reason = "what is lossless depends on the type")]
            #[allow(
                clippy::cast_possible_wrap, clippy::cast_possible_truncation, clippy::unnecessary_cast,
                reason = "bits of the same width"
            )]
            fn from_bits(bits: u64) -> $value {
                bits as $value
            }
            fn load(&self) -> $value {
                Self::load(self, Ordering::Relaxed)
            }
            fn store(&self, value: $value) {
                Self::store(self, value, Ordering::Relaxed);
            }
        }

        impl Number for $atomic {
            const ONE: $value = 1;
            fn add(&self, n: $value) {
                self.fetch_add(n, Ordering::Relaxed);
            }
            fn wrapping_sum(a: $value, b: $value) -> $value {
                a.wrapping_add(b)
            }
        }
    )* };
}

numbers! {
    AtomicU8: u8 as u8;
    AtomicU16: u16 as u16;
    AtomicU32: u32 as u32;
    AtomicU64: u64 as u64;
    AtomicUsize: usize as usize;
    AtomicI8: i8 as u8;
    AtomicI16: i16 as u16;
    AtomicI32: i32 as u32;
    AtomicI64: i64 as u64;
    AtomicIsize: isize as usize;
}

impl<T> sealed::Sealed for AtomicPtr<T> {}
// SAFETY: the null pointer.
unsafe impl<T: 'static> Zeroable for AtomicPtr<T> {}

impl<T: 'static> Word for AtomicPtr<T> {
    type Value = *mut T;
    fn to_bits(value: *mut T) -> u64 {
        value.expose_provenance() as u64
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the module is for 64-bit machines"
    )]
    fn from_bits(bits: u64) -> *mut T {
        core::ptr::with_exposed_provenance_mut(bits as usize)
    }
    fn load(&self) -> *mut T {
        Self::load(self, Ordering::Relaxed)
    }
    fn store(&self, value: *mut T) {
        Self::store(self, value, Ordering::Relaxed);
    }
}

/// Proof that the caller stays on its CPU: preemption is off, or interrupts are. References to this CPU's data borrow it.
///
/// ```compile_fail,E0505
/// # use core::sync::atomic::AtomicU64;
/// # use pcu9::percpu::Pinned;
/// pcu9::dpcpu! { static TICKS: AtomicU64 = AtomicU64::new(0); }
/// fn leak(pinned: Pinned<'_>) {
///     let ticks = TICKS.here(&pinned);
///     drop(pinned); // preemption is on again, and the caller may find itself on another CPU
///     ticks.load(core::sync::atomic::Ordering::Relaxed);
/// }
/// ```
///
/// Nor can it be sent to another LWP, which may run elsewhere:
///
/// ```compile_fail,E0277
/// # use pcu9::percpu::Pinned;
/// fn send(pinned: Pinned<'static>) {
///     std::thread::spawn(move || { let _pinned = pinned; });
/// }
/// ```
#[derive(Debug)]
pub struct Pinned<'a> {
    offset: usize,
    stays: PhantomData<(&'a (), *mut ())>,
}

impl<'a> Pinned<'a> {
    /// Takes note that the caller cannot be moved.
    ///
    /// # Safety
    ///
    /// Until the token is dropped the caller stays on the CPU that it is on, whose area stays, too.
    pub unsafe fn assume(this: impl ThisCpu) -> Self {
        Self {
            offset: this.offset(),
            stays: PhantomData,
        }
    }

    /// At `IPL_PCU` nobody is moved: no further promise is needed.
    pub fn at_ipl<K: Kernel<N>, const N: usize>(
        this: impl ThisCpu,
        _: &'a IplPcu<'_, K, N>,
    ) -> Self {
        Self {
            offset: this.offset(),
            stays: PhantomData,
        }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }
}
