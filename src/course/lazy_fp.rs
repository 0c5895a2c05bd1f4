//! Unit 6: what a closed gate does not keep out.
//!
//! So far a closed gate was enough: whoever uses the registers traps first. In June 2018 it became known that many processors do not
//! wait for it. They execute the use *speculatively*, with whatever is in the registers, raise `#NM` when the instruction retires, and
//! leave traces in the cache from which the value can be read: CVE-2018-3665, `LazyFP`. The registers hold what the last owner
//! left there, keys among the rest, and lazy switching leaves them there by design.
//!
//! The condition is worth stating exactly, since it says what to do: *user mode of one protection domain runs while registers hold
//! another's state*. It does not say "lazy". Kernel threads, idle, and other threads of the same process may run over them. And an eager
//! kernel is not safe by being eager: after an exec, an exit, or a debugger's write the registers hold a state that has no owner any
//! more.
//!
//! Hence pcu9's [`LeakRule`](crate::pcu::LeakRule), a parameter apart from the policy. Each CPU remembers whose bits its registers
//! hold, the *residue*, which outlives the owner: it is a domain, not an LWP. Under `DomainAware`, before user mode of another domain,
//! live registers are saved, and the unit is *wiped* (invariant I5). A wipe loads the initial state from memory: FNINIT marks registers
//! as empty and leaves their contents. `Trusting` is plain pcu(9), and
//! [`AcceptLazyFp`](crate::pcu::AcceptLazyFp) stands where it is chosen, so that a reader of the code sees the choice.
//!
//! Does laziness pay then? On an affected CPU seldom: between processes the registers are saved and wiped anyway, so a trap saves
//! only the restore. That, and programs that all use SSE since compilers copy memory by it, is why Linux, FreeBSD, OpenBSD, Xen and seL4
//! left it on x86. [`LazyFp::recommended_policy`](crate::x86_64::LazyFp::recommended_policy) says `Deferred` there.
//!
//! # Exercise
//!
//! `Local::wipe` (`src/pcu/local.rs`) leaves the initial state behind. Take the line out that does it. All that is left to protect the
//! last owner is the closed gate: which tests still pass, and why is "the other LWP computes correctly" no test of a leak?
//!
//! The test is `tests/protocol/leaks.rs::another_domain_finds_the_registers_wiped_and_the_owner_loses_nothing`, the solution
//! `tests/course/6-lazy-fp.patch`. On a CPU, `tests/boot_leaks.rs::after_a_switch` looks behind the gate.
//!
//! # Sources
//!
//! J. Stecklina, T. Prescher, "`LazyFP`: Leaking FPU Register State using Microarchitectural Side-Channels", arXiv:1806.07480 (2018);
//! INTEL-SA-00145; Xen XSA-267. NetBSD, `sys/arch/x86/x86/fpu.c` 1.47 (2018) and 1.59 (2019-10-12), which made x86 eager and left pcu(9) to
//! the other ports.
