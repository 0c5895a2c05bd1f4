//! Segments and the task state segment of a CPU.
//!
//! The order of the selectors is what SYSCALL and SYSRET ask for (Intel SDM, volume 3A, "Fast System Calls in 64-Bit
//! Mode"). NMI and #DF have stacks of their own (interrupt stack table), so that they work whatever the stack pointer is.

use alloc::boxed::Box;
use core::mem::offset_of;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::nmi;
use crate::memory::stacks::Stack;

/// Selector of kernel code.
pub(crate) const KERNEL_CODE: u16 = 0x08;
/// Selector of kernel data.
pub(crate) const KERNEL_DATA: u16 = 0x10;
/// Selector of user data, with its privilege level.
pub(crate) const USER_DATA: u16 = 0x1b;
/// Selector of user code, with its privilege level.
pub(crate) const USER_CODE: u16 = 0x23;

/// Interrupt stack table entries, as the IDT counts them (from 1).
pub(super) const IST_DOUBLE_FAULT: u8 = 1;
pub(super) const IST_NMI: u8 = 2;

/// Makes and loads this CPU's tables; the address of the TSS field with the stack for entries from user mode. A CPU that comes back
/// gives that address, `rsp0`, and keeps its TSS; else it is 0. `gs_base` is what its
/// [`nmi`](super::nmi) handler shall have.
pub(super) fn load(rsp0: u64, gs_base: VirtAddr) -> u64 {
    let (tss, rsp0) = if rsp0 == 0 {
        new_tss(gs_base)
    } else {
        known_tss(rsp0)
    };
    let gdt = Box::leak(Box::new(GlobalDescriptorTable::new()));
    gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    gdt.append(Descriptor::user_data_segment());
    gdt.append(Descriptor::user_code_segment());
    let tss_selector = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the descriptor at this selector is the kernel's code segment.
    unsafe { CS::set_reg(SegmentSelector(KERNEL_CODE)) };
    // SAFETY: the descriptor at this selector is the kernel's data segment.
    unsafe { SS::set_reg(SegmentSelector(KERNEL_DATA)) };
    for set in [DS::set_reg, ES::set_reg, FS::set_reg, GS::set_reg] {
        // SAFETY: nothing in long mode needs these selectors; the caller writes the base of `gs` again.
        unsafe { set(SegmentSelector::NULL) };
    }
    // SAFETY: the selector names the descriptor of a TSS that is never freed, and that this new GDT does not call busy.
    unsafe { load_tss(tss_selector) };
    rsp0
}

/// Where the field lies in its TSS.
const RSP0: usize = offset_of!(TaskStateSegment, privilege_stack_table);

/// The TSS that has its field at `rsp0`.
fn known_tss(rsp0: u64) -> (&'static TaskStateSegment, u64) {
    let tss = core::ptr::with_exposed_provenance::<TaskStateSegment>(rsp0 as usize - RSP0);
    // SAFETY: `new_tss` made it, and it is never freed.
    (unsafe { &*tss }, rsp0)
}

fn new_tss(gs_base: VirtAddr) -> (&'static TaskStateSegment, u64) {
    let tss = Box::leak(Box::new(TaskStateSegment::new()));
    for ist in [IST_DOUBLE_FAULT, IST_NMI] {
        let stack = Stack::new().expect("no memory for an exception stack");
        let top = match ist {
            IST_NMI => nmi::prepare_stack(stack.top(), gs_base),
            _ => stack.top(),
        };
        tss.interrupt_stack_table[usize::from(ist) - 1] = VirtAddr::new(top);
        core::mem::forget(stack); // for as long as the CPU runs
    }
    let rsp0 = (&raw mut *tss).expose_provenance() + RSP0;
    (tss, rsp0 as u64)
}
