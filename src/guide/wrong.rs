//! What goes wrong: what is seen, why, and the test that shows it.
//!
//! Each name is a test of this repository that is run; the ones of `tests/protocol` play the fault in a simulated kernel, the ones of
//! `tests/boot_*` on a CPU. Look at one before you look for the fault in your own kernel.
//!
//! | what is seen | why | a test |
//! |---|---|---|
//! | Results are wrong, now and then, on more than one CPU | `switchpoint` is not called at every switch-in, or an early return skips it when "nothing changed" | `tests/protocol/switching.rs::a_switch_to_an_lwp_whose_state_was_stolen_closes_the_gate` |
//! | The first LWP after boot finds numbers in its registers | the gate stood open before `init_cpu`, or its first run has no `switchpoint` | `tests/protocol/switching.rs::an_lwp_that_never_uses_the_unit_never_traps_and_finds_the_gate_closed` |
//! | An LWP computes with its own numbers of some time ago | registers were loaded over newer ones: a unit's `state_load` does not look at `PCU_REENABLE` | `tests/protocol/switching.rs::load_by_the_owner_reenables_and_never_reloads` |
//! | `#NM` again and again at one address | the handler returns without `trap`, or writes `CR0` itself afterwards | `tests/boot_missing_clts.rs::the_first_use` |
//! | `#NM` in the kernel, at an address of its own | the kernel is not soft-float, or copies by SSE: the address is the instruction's | `tests/boot_stray_use.rs::a_kernel_thread_without_a_state` |
//! | `#GP` in the kernel, at an XRSTOR | the area is not at a multiple of 64, was not prepared, or was written without a check; `fixup` is not asked | `tests/boot_bad_image.rs::a_reserved_field` |
//! | A new process has another's numbers | `exec` is not called, or domains are numbers that are used again (P5) | `tests/boot_exec.rs::exec_starts_from_the_initial_state` |
//! | A child does not have its parent's numbers | `fork` comes after the child could run, or the child's area was made ready after it | `tests/boot_fork.rs::parent_live_here` |
//! | Memory of an LWP that has ended is written | its memory was freed before `exit` was called, or though it said `NoAnswer` | `tests/boot_exit.rs::nothing_is_saved_into_memory_that_is_used_again` |
//! | Two CPUs stand still | a cross-call is waited for with interrupts off, or with a lock that the interrupted code holds | `tests/boot_smp.rs::two_cpus_ask_each_other_at_the_same_time` |
//! | An LWP stands still after it migrated | the request's interrupt is not sent, or not served | `tests/boot_migration.rs::live_state_follows_by_one_cross_call` |
//! | Traps under `Deferred`, which promises none | `before_user` is missing, and operations took the registers; or the gate in the IDT lets interrupts in before `trap` | `tests/protocol/policies.rs::a_state_that_is_live_elsewhere_when_the_policy_changes_is_fetched_before_user_mode` |
//! | Cross-calls under `Deferred` and `Eager`, which promise none | `switch_out` is missing, or comes when the LWP may be elsewhere already | `tests/protocol/policies.rs::deferred_migrates_by_memory_and_a_stale_link_does_not_hold` |
//! | Another process's numbers, read by an attack on speculation | the leak rule was set to `Trusting` | `tests/boot_leaks.rs::after_a_switch` |
//! | A debugger's change is lost | memory was written while registers were live, and not in `replace` or `edit` | `tests/protocol/memory.rs::what_replace_writes_is_the_state_wherever_the_old_one_was` |
//! | A panic: "a switch inside a kernel section" | code in a section sleeps, or is preempted (P7) | `tests/protocol/sections.rs::a_switch_inside_is_refused` |
//! | A unit of one's own leaks, or faults in a page that it opened | user mode reaches more than `state_save` moves, or the TLB still has the closed entry | `tests/boot_scratch.rs::nothing_is_left_for_another_domain` |
//! | A breakpoint is met by another LWP | it was set by writing a debug register, and not the LWP's state | `tests/boot_debug_registers.rs::nobody_else_meets_it` |
