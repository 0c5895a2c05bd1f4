// What Rust has no words for: the way from QEMU's -kernel to `main`, from an exception to `exception`, from one LWP's
// stack to another's, and the FPU instructions of the LWPs.
//
// QEMU finds the entry in the ELF note of type 18, XEN_ELFNOTE_PHYS32_ENTRY (Xen, xen/include/public/elfnote.h), and
// enters in 32-bit protected mode without paging, interrupts off. The tables map the lowest GiB at 0 and where the
// kernel is linked. Steps: Intel SDM, volume 3A, "Initializing IA-32e Mode". The link script asks for these names.

        .section .note.Xen, "a", @note
        .balign 4
        .long 4, 8, 18                  // lengths of the owner's name and of the entry address, type
        .asciz "Xen"
        .quad pvh_start

        .section .boot.text, "ax", @progbits
        .code32
        .global pvh_start, multiboot2_start, enter_long_mode
multiboot2_start:                       // there is no multiboot2 header
pvh_start:
        cld
        mov esp, offset boot_stack_top_phys
enter_long_mode:                        // in 32-bit protected mode, on any stack below 4 GiB
        mov eax, cr4
        or eax, 0x20                    // PAE
        mov cr4, eax
        mov eax, offset boot_pml4_phys
        mov cr3, eax
        mov ecx, 0xc0000080             // IA32_EFER
        rdmsr
        or eax, 0x100                   // LME
        wrmsr
        mov eax, cr0
        or eax, 0x80000001              // PG, PE
        mov cr0, eax
        lgdt [gdt_pointer]
        push 0x08
        mov eax, offset long_mode
        push eax
        retf

        .code64
long_mode:
        xor eax, eax
        mov ds, eax
        mov es, eax
        mov ss, eax
        movabs rax, offset boot_next
        mov rsp, [rax]
        call [rax + 8]

        .balign 8
gdt:    .quad 0, 0x00af9b000000ffff     // 0x08: 64-bit code
gdt_pointer:
        .short 15
        .long gdt

        .section .data.boot, "aw", @progbits
        .global boot_next               // the stack and the function of the CPU that starts next
boot_next:
        .quad boot_stack_top, {main}
        .balign 4096
        .global boot_pml4, boot_pdpt_low, boot_pdpt_high, boot_pd, boot_stack_top
boot_pml4:
        .quad boot_pdpt_low_phys + 3    // present, writable
        .fill 510, 8, 0
        .quad boot_pdpt_high_phys + 3
boot_pdpt_low:
        .quad boot_pd_phys + 3
        .fill 511, 8, 0
boot_pdpt_high:
        .fill 510, 8, 0
        .quad boot_pd_phys + 3, 0
boot_pd:
        .set page, 0x83                 // present, writable, 2 MiB
        .rept 512
        .quad page
        .set page, page + 0x200000
        .endr

        .section .bss.boot, "aw", @nobits
        .balign 16
        .skip 16384
boot_stack_top:

// One stub of 16 bytes for each exception and for one interrupt; the mask names those for which the CPU pushes an error code. Intel SDM,
// volume 3A, "Exception and Interrupt Reference". What is on the stack at the call is the struct `Frame`.

        .section .text.exceptions, "ax", @progbits
        .balign 16
        .global exception_stubs
exception_stubs:
        .set vector, 0
        .rept 33
        .balign 16
        .if (vector == 32) || (((0x60227d00 >> vector) & 1) == 0)
        push 0
        .endif
        .byte 0x6a, vector              // push vector
        jmp 2f
        .set vector, vector + 1
        .endr
2:      push rax; push rcx; push rdx; push rsi; push rdi; push r8; push r9; push r10; push r11
        cld
        mov rdi, rsp
        call {exception}
        pop r11; pop r10; pop r9; pop r8; pop rdi; pop rsi; pop rdx; pop rcx; pop rax
        add rsp, 16
        iretq

// The switch from one LWP's stack to another's: switch_stack(save_rsp, load_rsp).

        .section .text.switch, "ax", @progbits
        .global switch_stack
switch_stack:
        push rbx; push rbp; push r12; push r13; push r14; push r15
        mov [rdi], rsp
        mov rsp, rsi
        pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx
        ret

// The only code that touches FPU registers, as user code would: no word to the kernel, the first use traps.

        .section .text.fpu, "ax", @progbits
        .global read_registers, write_registers, add_registers
read_registers:
        fxsave64 [rdi]
        ret
write_registers:
        fxrstor64 [rdi]
        ret
add_registers:
        addpd xmm0, xmm8
        addpd xmm1, xmm9
        addpd xmm2, xmm10
        addpd xmm3, xmm11
        addpd xmm4, xmm12
        addpd xmm5, xmm13
        addpd xmm6, xmm14
        addpd xmm7, xmm15
        fadd st(0), st(4)
        ret
