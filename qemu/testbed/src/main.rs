//! The demo kernel: runs the programs of the archive until all of them have ended.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
pcu9_testbed::kernel_main!(pcu9_testbed::demo::main);

#[cfg(not(target_os = "none"))]
fn main() {}
