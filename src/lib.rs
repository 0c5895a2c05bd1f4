#![doc = include_str!("../README.md")]
//!
//! # Modules, in reading order
//!
//! 1. [`kernel`]: the only seam to the hosting kernel, and the tokens that prove where a call comes from.
//! 2. [`pcu`]: the protocol, machine-independent.
//! 3. [`percpu`]: per-CPU data, and the header by which they are read from outside.
//! 4. [`x86_64`]: the reference machine and its FPU unit.
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
#[cfg(target_pointer_width = "64")]
pub mod percpu;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;
