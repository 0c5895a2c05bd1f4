//! FreeBSD's `kvm_getpcpu`(3) for kernels that carry `pcu9`'s header: per-CPU data, counters, owners of units and saved registers,
//! read from a dump of the guest, or from the guest while it runs.
//!
//! A kernel that defines its per-CPU data by `pcu9::percpu::percpu_header!` says in one object where everything lies. This library
//! needs that object, the kernel's ELF file (for its symbols and its build id) and the guest's memory: an ELF core, as QEMU's
//! `dump-guest-memory` writes it with `paging=false`. It walks the page tables itself and reads what it is asked for, so a dump may
//! be of any size. The program `pcustat` (`cargo pcustat SOURCE`) shows what it finds.
//!
//! A guest that runs is a source like a dump ([`Live`], [`Kpcpu::open_live`]): the file in which QEMU keeps its memory is mapped, and
//! the guest never waits for a reader; or QEMU copies what is asked for (`pmemsave`). Which address is where in the file is asked of
//! QEMU. The kernel goes on meanwhile, so every question is put between two looks at the header's generation, and again if they
//! differ ([`Kpcpu::consistent`]); a guest that ends, is reset or runs another kernel is an error of its own ([`Gone`],
//! [`Error::Replaced`]), never an answer.
//!
//! A kernel that handed its header to QEMU's vmcoreinfo device is read from a dump without its file ([`Kpcpu::open_dump`]); only
//! symbols that the header does not describe are unknown then.
//!
//! ```no_run
//! use pcu9_kpcpu::{Kpcpu, Owner};
//!
//! # fn main() -> pcu9_kpcpu::Result<()> {
//! let mut kernel = Kpcpu::open("demo.dump.kernel".as_ref(), "demo.dump".as_ref())?;
//! for cpu in kernel.present()? {
//!     for unit in kernel.units(cpu)? {
//!         if let Owner::Live(lwp) = unit.owner {
//!             println!("CPU {cpu}: {} is LWP {:?}'s", unit.name, kernel.lwp(lwp)?.number);
//!         }
//!     }
//! }
//! let packets = kernel.counter("net::PACKETS")?;
//! println!("{} packets", kernel.counter_u64_fetch(packets)?);
//!
//! kernel.dpcpu_setcpu(2)?;
//! let colour = kernel.nlist("COLOUR")?;
//! let mut bytes = [0; 8];
//! kernel.read(colour.address, &mut bytes)?;
//! # Ok(())
//! # }
//! ```
//!
//! | libkvm | here | |
//! |---|---|---|
//! | `kvm_open2` | [`Kpcpu::open`] | checks by build id that kernel and dump belong together |
//! | `kvm_open2` on `/dev/mem` | [`Kpcpu::open_live`] | from outside of the machine |
//! | `kvm_close` | drop | |
//! | `kvm_getmaxcpu` | [`Kpcpu::getmaxcpu`] | the bound of ids |
//! | `kvm_getncpus` | [`Kpcpu::getncpus`] | how many are started; their ids: [`Kpcpu::present`] |
//! | `kvm_getpcpu` | [`Kpcpu::getpcpu`] | an absent CPU is `None`, an error is an error |
//! | `kvm_dpcpu_setcpu` | [`Kpcpu::dpcpu_setcpu`] | a failing call changes nothing |
//! | `kvm_nlist` | [`Kpcpu::nlist`] | says of which CPU the address is |
//! | `kvm_read` | [`Kpcpu::read`], [`Kpcpu::read_partial`] | all, or as far as there is |
//! | `kvm_read_zpcpu` | [`Kpcpu::read_zpcpu`] | only what is per-CPU data, of CPUs that are present |
//! | `kvm_counter_u64_fetch` | [`Kpcpu::counter_u64_fetch`] | or each CPU's part: [`Kpcpu::counter_u64_percpu`] |
//! | `kvm_geterr` | [`Error`] | what was looked for, and where |
//! | a call with `kd` NULL | [`Kpcpu::clear_cache`] | of this handle, all of it |
//!
//! Beyond libkvm: [`Kpcpu::units`] (owners and counters), [`Kpcpu::lwps`] (where each LWP's newest state is), [`Kpcpu::fpu`] (saved
//! registers). No bytes make the reader panic or loop: what is damaged is an error, and every count is bounded.

#[doc = include_str!("summary.md")]
pub mod summary {}

mod consistent;
mod dump;
mod error;
mod fpu;
mod handle;
mod header;
mod hex;
mod kernel;
mod live;
mod memory;
mod note;
mod paging;
mod percpu;
mod qmp;
pub mod stat;
mod table;
mod units;

pub use self::dump::{CpuRegisters, Dump, DumpError, GuestNote, Segment};
pub use self::error::{Error, ReadCause, Result};
pub use self::fpu::FpuRegisters;
pub use self::handle::{Kpcpu, Torn};
pub use self::header::{AreaFormat, HeaderError};
pub use self::kernel::{KernelError, KernelFile, Symbol};
pub use self::live::{Live, LiveError, Way};
pub use self::memory::{Gone, PhysicalMemory};
pub use self::paging::{AddressSpace, Levels, Mapping, TranslateError};
pub use self::percpu::{CpuState, Pcpu};
pub use self::qmp::{Qmp, QmpError};
pub use self::table::{Descriptor, Found, Kind};
pub use self::units::{Lwp, Owner, Place, Unit};
