//! Images from outside, and for outside: signal frames, debuggers, core dumps, migration.
//!
//! - [`UserImage`]: an image from outside that was checked; nothing else can be stored to an LWP's area.
//! - [`Snapshot`]: an LWP's state in memory, to be exported.
//! - [`Form`]: the two forms that an image has outside.
//!
//! # In
//!
//! The kernel copies the bytes into memory of its own, once. [`UserImage::check`] borrows the copy, so what was checked cannot be
//! changed before it is stored; [`UserImage::store`] wants the token that [`Pcu::replace`](crate::pcu::Pcu::replace) alone gives
//! out, so no area is written whose LWP's registers are live somewhere, and the next load is a real restore of it. A restore from
//! an area that was written by nothing else does not fault.
//!
//! ```no_run
//! # use pcu9::{kernel::{Held, Kernel}, pcu::Pcu, x86_64::fpu::{self, FPU, FpuArea}};
//! use pcu9::x86_64::fpu::foreign::{Form, UserImage};
//! # #[derive(Debug)] enum Errno { Sigsegv }
//! # fn sigreturn<K: Kernel<1, Lwp: FpuArea>>(pcu: &Pcu<K, 1>, lwp: &mut impl Held<K, 1>, copy: &[u8]) -> Result<(), Errno> {
//! // `copy`: Form::SignalFrame.bytes() bytes of user memory, or as many as could be read.
//! let image = <UserImage>::check(Form::SignalFrame, copy, fpu::features().xcr0()).map_err(|_| Errno::Sigsegv)?;
//! pcu.replace(lwp, FPU, |replacing| image.store(replacing)).map_err(|_| Errno::Sigsegv)
//! # }
//! ```
//!
//! Neither bytes nor an area of the LWP's will do:
//!
//! ```compile_fail,E0599
//! # use pcu9::{kernel::{Held, Kernel}, pcu::Pcu, x86_64::fpu::{FPU, FpuArea, foreign::StoreError}};
//! # fn sigreturn<K: Kernel<1, Lwp: FpuArea>>(pcu: &Pcu<K, 1>, lwp: &mut impl Held<K, 1>, copy: &[u8]) {
//! let result: Result<(), StoreError> = pcu.replace(lwp, FPU, |replacing| copy.store(replacing));
//! # }
//! ```
//!
//! ```compile_fail,E0308
//! # use pcu9::x86_64::fpu::{Area, foreign::UserImage};
//! # fn outside_of_replace(image: &UserImage<'_>, area: &mut Area) {
//! let _ = image.store(area);
//! # }
//! ```
//!
//! Nor can the copy be changed between the check and the store:
//!
//! ```compile_fail,E0506
//! # use pcu9::{pcu::Replacing, x86_64::fpu::{FpuArea, foreign::{Form, UserImage}}};
//! # fn change<L: FpuArea>(copy: &mut [u8], replacing: &mut Replacing<'_, L>) {
//! let image = <UserImage>::check(Form::Regset, copy, 7).unwrap();
//! copy[24] = 0xff;
//! let _ = image.store(replacing);
//! # }
//! ```
//!
//! # Out
//!
//! [`Pcu::inspect`](crate::pcu::Pcu::inspect) brings memory up to date; a [`Snapshot`] of it writes every byte of what it exports:
//! state, architectural values for what is in its initial state, zeros for the rest.
//!
//! # The layout
//!
//! Both forms are the standard format of the XSAVE area (Intel SDM, volume 1, "Standard Format of the Extended Region"), at the
//! offsets of *this* processor's CPUID, never another's; whatever format the areas have. Without XSAVE they are FXSAVE's 512
//! bytes. The pointers of x87 are those of 64-bit mode: 64 bits, no selectors.
//!
//! | bytes | what | in | out |
//! |---|---|---|---|
//! | 0-23 | x87: control, status, tags, opcode, pointers | if `XSTATE_BV[0]` | or `FCW` = 37FH, zeros |
//! | 24-27 | `MXCSR` | always, as XRSTOR takes it | |
//! | 28-31 | `MXCSR_MASK` | not looked at | this processor's |
//! | 32-159 | x87 registers | as 0-23 | or zeros |
//! | 160-415 | XMM | if `XSTATE_BV[1]` | or zeros |
//! | 416-463 | reserved | not looked at | zeros |
//! | 464-511 | for software | by the [`Form`] | |
//! | 512-519 | `XSTATE_BV` | within what the LWP may use | |
//! | 520-527 | `XCOMP_BV` | 0 | 0 |
//! | 528-575 | reserved | 0, all of it | zeros |
//! | from 576 | components, gaps between them | if `XSTATE_BV` names them | or zeros |
//!
//! Bytes 464-511 and the frame's end are Linux's: `struct _fpx_sw_bytes`, `FP_XSTATE_MAGIC1` and `FP_XSTATE_MAGIC2` in
//! `arch/x86/include/uapi/asm/sigcontext.h`, read in `check_xstate_in_sigframe` and written in `save_xstate_epilog` of
//! `arch/x86/kernel/fpu/signal.c`; those of a regset `USER_XSTATE_XCR0_WORD` in `arch/x86/include/asm/user.h`. The checks are
//! Linux's `validate_user_xstate_header` and `copy_uabi_to_xstate` in `arch/x86/kernel/fpu/xstate.c`, and stricter: `MXCSR` is
//! checked whatever `XSTATE_BV` says, and a frame with one good magic is refused, not taken for a legacy one.
//!
//! `MXCSR` goes with XRSTOR in the standard format, whatever `XSTATE_BV` says, and with SSE in the compacted one. So that no reader
//! loses it, `XSTATE_BV` names SSE wherever `MXCSR` has not its initial value.

mod check;
mod error;
mod export;
mod form;
mod transfer;

pub use self::check::UserImage;
pub use self::error::{ImageError, StoreError, TooShort};
pub use self::export::Snapshot;
pub use self::form::Form;
