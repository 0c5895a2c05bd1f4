//! Segments and the task state segment of a CPU.
//!
//! The order of the selectors is what SYSCALL and SYSRET ask for (Intel SDM, volume 3A, "Fast System Calls in 64-Bit
//! Mode"). NMI and #DF have stacks of their own (interrupt stack table), so that they work whatever the stack pointer is.

use alloc::boxed::Box;

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

/// Makes and loads this CPU's tables; the address of the TSS field with the stack for entries from user mode. `gs_base` is what
/// its [`nmi`](super::nmi) handler shall have.
pub(super) fn load(gs_base: VirtAddr) -> u64 {
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
    let rsp0 = (&raw mut tss.privilege_stack_table[0]).expose_provenance() as u64;

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
    // SAFETY: the selector names the descriptor of a TSS that is never freed.
    unsafe { load_tss(tss_selector) };
    rsp0
}
