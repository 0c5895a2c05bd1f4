//! Per-CPU data: FreeBSD's pcpu(9), DPCPU, zpcpu and counter(9), and a header by which all of it is read from outside.
//!
//! # The idea, on one page
//!
//! Every CPU has an *area*: a copy of all per-CPU variables, then room for what is allocated at run time. The linker gathers the
//! variables in a section, the *template*, which holds their initial values and is never changed. A variable's address there is its
//! *name*, and one addition leads from it to any CPU's copy:
//!
//! ```text
//!   template (linked)                 area of CPU 0            area of CPU 3
//!   +--------------+ start            +--------------+         +--------------+
//!   | Pcpu         |     -- copy -->  | Pcpu         |         | Pcpu         |
//!   | TICKS = 1000 | <- name          | TICKS = 1007 | <-.     | TICKS = 1000 |
//!   +--------------+ stop             +--------------+   |     +--------------+
//!                                     | zpcpu, 0     |   |     | zpcpu, 0     |
//!                                     +--------------+   |     +--------------+
//!                  address on CPU 0 = name + offset[0] --'
//! ```
//!
//! The offset is a number per CPU: `area - start`. On x86-64 it is the base of `gs`, so that `inc qword ptr gs:[TICKS]` is the whole of an
//! increment: one instruction, which no interrupt splits, and which a migration comes before or after, never between the choice of
//! a copy and its change. An allocation has a name too (behind the template's end), so everything here is reached by that one rule, by
//! its own CPU, by others, and by a reader of a dump.
//!
//! # What there is
//!
//! | | |
//! |---|---|
//! | [`dpcpu!`](crate::dpcpu) → [`Dpcpu`] | a static, per CPU, with its initial value |
//! | [`Pcpu`] | the fixed block: id, state, current and idle LWP, owner table, the kernel's own part |
//! | [`Zpcpu`] | an object per CPU, allocated and freed at run time |
//! | [`CounterU64`] | a counter: add without a lock and without loss, fetch, zero; [`Late`] puts one into a static |
//! | [`Percpu`] | the CPUs: absent, present, started, offline; ids may have gaps, their number is known at run time |
//! | [`ThisCpu`], [`Pinned`] | how the executing CPU gets at its own copy |
//! | [`header`] | the page for readers: every byte that they need |
//!
//! **Own and other.** Words (`AtomicU64` and its like) are read, written and added to in one step, from anywhere: `TICKS.increment(HERE)`. A
//! *reference* to this CPU's copy borrows a [`Pinned`], which proves that preemption is off, or comes at `IPL_PCU`, where even a `Cell` will
//! do. Another CPU's copy is reached by its number, `TICKS.on(&PERCPU, cpu)`, only if the type is `Sync`, and is `None` for an absent CPU.
//!
//! **What is not promised.** A word is one step for *its own CPU*: who writes another CPU's word by [`Dpcpu::on`] competes with an addition
//! there. So a counter is set to 0 by each CPU itself.
//!
//! # In a kernel
//!
//! 1. In the linker script, where data go (the names are the linker's convention for a set; without a script it does the same by
//!    itself):
//!
//!    ```text
//!    set_pcpu : ALIGN(64) { __start_set_pcpu = .; KEEP(*(set_pcpu)) __stop_set_pcpu = .; }
//!    set_pcu9_desc : ALIGN(8) { __start_set_pcu9_desc = .; KEEP(*(set_pcu9_desc)) __stop_set_pcu9_desc = .; }
//!    ```
//!
//!    and, among the notes, `KEEP(*(.note.pcu9))`. A script that loses the section is found out by [`Percpu::init`].
//! 2. The block and the header, once: [`percpu_header!`](crate::percpu_header).
//! 3. At boot [`Percpu::init`] with tables from anywhere, then for each CPU [`Percpu::add_cpu`] with memory from anywhere; its answer goes into
//!    the base of `gs`, and from then on [`Gs`](crate::x86_64::Gs) is true. [`Percpu::set_started`] when the CPU runs.
//! 4. `pcu9`'s own state of a CPU may be one of the variables: `CPU_PCU.on(&PERCPU, cpu)` is [`Kernel::cpu_pcu`](crate::kernel::Kernel::cpu_pcu), and
//!    [`Dpcpu::this_copy`] is [`this_cpu_pcu`](crate::kernel::Kernel::this_cpu_pcu). It may also stay in an array: nothing in [`pcu`](crate::pcu)
//!    knows this module.
//!
//! The testbed's `glue/percpu.rs` is all of that in 120 lines.
//!
//! Architecture invariants: the template is never written; an offset never means "absent"; nothing here allocates.

mod access;
mod counter;
mod describe;
pub mod descriptor;
mod dpcpu;
mod error;
pub mod header;
mod late;
mod pcpu;
mod registry;
mod table;
mod zpcpu;

pub use self::access::{Number, Pinned, Symbol, ThisCpu, Word, Zeroable};
pub use self::counter::CounterU64;
pub use self::describe::Translation;
pub use self::dpcpu::Dpcpu;
pub use self::error::{CpuError, InitError, NoRoom};
pub use self::late::Late;
pub(crate) use self::pcpu::OFFSET;
pub use self::pcpu::{CpuState, Pcpu};
pub use self::registry::{AREA_ALIGN, Percpu, Tables};
pub use self::table::CpuGroup;
pub use self::zpcpu::Zpcpu;
