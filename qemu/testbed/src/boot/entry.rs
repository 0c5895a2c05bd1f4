//! The first instructions: from 32-bit protected mode without paging to Rust code in the upper half.
//!
//! Two loaders find their way in. QEMU's `-kernel` (and Xen) reads the ELF note of type 18, `XEN_ELFNOTE_PHYS32_ENTRY`
//! (Xen, `xen/include/public/elfnote.h`), and enters with `EBX` pointing to a `hvm_start_info`
//! (`xen/include/public/arch-x86/hvm/start_info.h`). GRUB reads the multiboot2 header and enters with the magic number
//! in `EAX` and the boot information in `EBX` (Multiboot2 Specification, section "I386 machine state").
//! Both leave paging off, so the tables here come first: the lowest GiB mapped three times with 2 MiB pages, at 0 (for the
//! next instruction), at the direct map and at the kernel's link address.
//! Intel SDM, volume 3A, section "Initializing IA-32e Mode", gives the order of the steps.

use core::arch::global_asm;

/// What `EAX` holds after a multiboot2 boot loader.
pub(super) const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;
/// The number that [`start`](super::start) gets after a PVH boot; it is also the first word of the start info.
pub(super) const PVH_MAGIC: u32 = 0x336e_c578;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18                  // lengths of the owner's name and of the entry address, type
    .asciz "Xen"
    .quad pvh_start

    .section .boot.header, "a", @progbits
    .balign 8
multiboot2_header:
    .long 0xe85250d6, 0, multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + multiboot2_header_end - multiboot2_header)
    .short 6, 0                     // modules on page boundaries
    .long 8
    .short 0, 0                     // no more tags
    .long 8
multiboot2_header_end:

    .section .boot.text, "ax", @progbits
    .code32
    .global pvh_start, multiboot2_start
pvh_start:
    mov esi, {pvh_magic}
    jmp 2f
multiboot2_start:
    mov esi, eax
2:  cli
    cld
    mov esp, offset boot_stack_top_phys

    mov eax, offset boot_pdpt_low_phys + 3       // present, writable
    mov dword ptr [boot_pml4_phys], eax          // the lowest addresses
    mov dword ptr [boot_pml4_phys + 256 * 8], eax // the direct map
    mov eax, offset boot_pdpt_high_phys + 3
    mov dword ptr [boot_pml4_phys + 511 * 8], eax
    mov eax, offset boot_pd_phys + 3
    mov dword ptr [boot_pdpt_low_phys], eax
    mov dword ptr [boot_pdpt_high_phys + 510 * 8], eax
    mov edi, offset boot_pd_phys
    mov eax, 0x83                                // present, writable, 2 MiB
3:  mov dword ptr [edi], eax
    add edi, 8
    add eax, 0x200000
    cmp eax, 0x40000083
    jne 3b

    call boot_enable_paging
    lgdt [boot_gdt_pointer]
    push 0x08
    mov eax, offset boot_long_mode
    push eax
    retf

    // Shared with the other CPUs' start: long mode with the boot tables; clobbers EAX, ECX, EDX.
    .global boot_enable_paging
boot_enable_paging:
    mov eax, cr4
    or eax, 0x20                                 // PAE
    mov cr4, eax
    mov eax, offset boot_pml4_phys
    mov cr3, eax
    mov ecx, 0xc0000080                          // IA32_EFER
    rdmsr
    or eax, 0x900                                // LME, NXE
    wrmsr
    mov eax, cr0
    and eax, 0x9fffffff                          // not CD, not NW: INIT leaves them set
    or eax, 0x80010001                           // PG, WP, PE
    mov cr0, eax
    ret

    .code64
boot_long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    movabs rsp, offset boot_stack_top
    mov edi, esi
    mov esi, ebx
    xor ebp, ebp
    movabs rax, offset {start}
    call rax
    ud2

    .balign 8
    .global boot_gdt_pointer
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                     // 0x08: 64-bit code
    .quad 0x00cf93000000ffff                     // 0x10: data
    .quad 0x00cf9b000000ffff                     // 0x18: 32-bit code, for the trampoline
boot_gdt_pointer:
    .short 31
    .long boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_pml4, boot_pdpt_low, boot_pdpt_high, boot_pd, boot_stack_top
boot_pml4: .skip 4096
boot_pdpt_low: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 4096
    .skip 65536
boot_stack_top:
"#,
    pvh_magic = const PVH_MAGIC,
    start = sym super::start,
);
