#![doc = include_str!("../README.md")]
//!
//! # Modules, in reading order
//!
//! 1. [`kernel`]: the only seam to the hosting kernel, and the tokens that prove where a call comes from.
//! 2. [`pcu`]: the protocol, machine-independent.
//! 3. [`percpu`]: per-CPU data, and the header by which they are read from outside.
//! 4. [`x86_64`]: the reference machine and its units, the FPU first of all.
//! 5. [`guide`]: how to put it into a kernel, step by step, and what goes wrong.
//! 6. [`course`]: six units that explain it, each with an exercise.
//! 7. [`proofs`]: what is proved, by what, and what is not.
//!
//! [`summary`] is the page of pcu(9).
//!
//! # NetBSD's names
//!
//! | NetBSD | here |
//! |---|---|
//! | `pcu_load` | [`pcu::Pcu::load`] |
//! | `pcu_save` | [`pcu::Pcu::save`] |
//! | `pcu_save_all` | [`pcu::Pcu::save_all`] |
//! | `pcu_save_all_on_cpu` | [`pcu::Pcu::save_all_on_cpu`] |
//! | `pcu_discard` | [`pcu::Pcu::discard`] |
//! | `pcu_discard_all` | [`pcu::Pcu::discard_all`] |
//! | `pcu_valid_p` | [`pcu::LwpPcu::valid_p`] |
//! | `pcu_switchpoint` | [`pcu::Pcu::switchpoint`] |
//! | `pcu_ops_t` | [`pcu::PcuOps`] |
//! | `pcu_ops_md_defs[]` | the argument of [`pcu::Pcu::new`] |
//! | `PCU_VALID`, `PCU_REENABLE` | [`pcu::PcuFlags`] |
//! | `PCU_UNIT_COUNT` | `N` of [`kernel::Kernel`] |
//! | `l_pcu_cpu[]`, `l_pcu_valid` | [`pcu::LwpPcu`] |
//! | `ci_pcu_curlwp[]` | [`pcu::CpuPcu::owner`] |
//! | `splpcu` | [`kernel::IplPcu`] |
//! | `fpu_kern_enter`, `fpu_kern_leave` | [`pcu::Pcu::section`] |
//!
//! # FreeBSD's names
//!
//! | FreeBSD | here |
//! |---|---|
//! | `struct pcpu`, `PCPU_MD_FIELDS` | [`percpu::Pcpu`], its `extension` |
//! | `PCPU_GET(cpuid)`, `curthread` | [`this_cpu`](percpu::Dpcpu::this_cpu), [`this_lwp`](percpu::Dpcpu::this_lwp) of the block |
//! | `PCPU_GET(dynamic)`, `dpcpu_off[]` | [`percpu::ThisCpu::offset`], [`percpu::Percpu::offset`] |
//! | `DPCPU_DEFINE` | [`dpcpu!`] |
//! | `DPCPU_PTR`, `DPCPU_ID_PTR` | [`percpu::Dpcpu::here`], [`percpu::Dpcpu::on`] |
//! | `DPCPU_GET`, `DPCPU_SET`, `DPCPU_SUM` | [`percpu::Dpcpu::get`], [`percpu::Dpcpu::set`], [`percpu::Dpcpu::sum`] |
//! | `set_pcpu`, `dpcpu_init`, `pcpu_init` | the section, [`percpu::Percpu::init`], [`percpu::Percpu::add_cpu`] |
//! | `pcpu_destroy` | [`percpu::Percpu::remove_cpu`] |
//! | `mp_maxcpus`, `CPU_FOREACH` | [`percpu::Percpu::max_cpus`], [`percpu::Percpu::present`] |
//! | `UMA_ZONE_PCPU`, `uma_zalloc_pcpu`, `uma_zfree_pcpu` | [`percpu::Zpcpu::alloc`], [`percpu::Zpcpu::free`] |
//! | `zpcpu_get`, `zpcpu_get_cpu` | [`percpu::Zpcpu::here`], [`percpu::Zpcpu::on`] |
//! | `counter_u64_t`, `counter_u64_alloc`, `counter_u64_free` | [`percpu::CounterU64`] |
//! | `counter_u64_add`, `counter_u64_fetch`, `counter_u64_zero` | its methods; a `counter` of [`dpcpu!`] has them too |
//! | `COUNTER_U64_DEFINE_EARLY` | `counter NAME;` in [`dpcpu!`] |

#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::float_arithmetic,
        clippy::std_instead_of_core,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod kernel;
pub mod pcu;
#[doc = include_str!("proofs.md")]
pub mod proofs {}
#[cfg(target_arch = "x86_64")]
#[doc = include_str!("summary.md")]
pub mod summary {}
#[cfg(target_arch = "x86_64")]
pub mod course;
#[cfg(target_arch = "x86_64")]
pub mod guide;
#[cfg(all(target_pointer_width = "64", not(loom)))]
pub mod percpu;
mod shared;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;
