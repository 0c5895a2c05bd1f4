//! A real signal: what Linux puts into the frame is accepted, and what pcu9 puts there is what Linux restores.

use std::arch::asm;
use std::cell::RefCell;
use std::ptr;

use fastrand::Rng;
use pcu9::x86_64::fpu::foreign::Form;
use pcu9_mock::component::{SSE, X87};
use pcu9_mock::{FCW_INITIAL, MXCSR_INITIAL, Mock, X87Registers, models};

use super::super::{check, components, export, import, long};
use super::host;

thread_local! {
    /// The image that the handler puts into the frame, and the one that it found there.
    static FRAMES: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Where x87, XMM and `MXCSR` go when the signal is over. Intel SDM, volume 2A, "FXSAVE".
#[repr(C, align(16))]
struct Legacy([u8; 512]);

extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: Linux gives a context.
    let fpstate = unsafe { (*context).uc_mcontext.fpregs }.cast::<u8>();
    // SAFETY: `extended_size`, at byte 468 of a frame, whose length it is.
    let extended_size = unsafe { fpstate.add(468) }.cast::<[u8; 4]>();
    // SAFETY: as above.
    let length = u32::from_ne_bytes(unsafe { extended_size.read() }) as usize;
    // SAFETY: as above; the frame is on this thread's stack.
    let frame = unsafe { std::slice::from_raw_parts_mut(fpstate, length) };
    FRAMES.with_borrow_mut(|(put, found)| {
        *found = frame.to_vec();
        if put.len() == frame.len() {
            frame.copy_from_slice(put);
        }
    });
}

/// Raises the signal, and looks at the registers as soon as it is over.
fn raise() -> Legacy {
    let mut after = Legacy([0; 512]);
    let mxcsr = MXCSR_INITIAL;
    // SAFETY: a system call.
    let pid = unsafe { libc::getpid() };
    // SAFETY: as above.
    let tid = unsafe { libc::gettid() };
    // SAFETY: TGKILL, and the handler changes no register but those of the FPU, which are clobbers; control words and the x87
    // stack are put back. SYSCALL destroys RCX and R11.
    unsafe {
        asm!(
            "syscall",
            "fxsave64 [r12]",
            "fninit",
            "ldmxcsr [r13]",
            in("r12") &raw mut after,
            in("r13") &raw const mxcsr,
            in("rax") libc::SYS_tgkill,
            in("rdi") pid,
            in("rsi") tid,
            in("rdx") libc::SIGUSR1,
            clobber_abi("C"),
        );
    }
    after
}

#[test]
fn the_frame_of_a_signal_is_read_and_written() {
    // SAFETY: zeros are an action.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler touches nothing but its frame and this thread's variables; no other test uses the signal.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0);

    let before = raise();
    let linux = FRAMES.with_borrow(|(_, found)| found.clone());
    let world = host();
    let theirs = long(&linux, 472) & !components();
    if theirs != 0 {
        eprintln!(
            "NOT RUN: the frame of a signal: this machine's names components {theirs:#x} that the unit has not"
        );
        return;
    }
    assert_eq!(linux.len(), Form::SignalFrame.bytes_on::<Mock>());
    let image = check(Form::SignalFrame, &linux);
    assert_eq!(linux[160..416], before.0[160..416], "XMM in the frame");
    import(&world, &image).unwrap();
    let ours = export(&world, Form::SignalFrame);
    assert_eq!(
        ours[464..528],
        linux[464..528],
        "software's bytes, XSTATE_BV"
    );
    assert_eq!(ours[ours.len() - 4..], linux[linux.len() - 4..]);

    world
        .pcu
        .discard(
            &mut world.current(0),
            pcu9::x86_64::fpu::FPU,
            pcu9::pcu::Validity::Invalid,
        )
        .unwrap();
    world.starts_over(0);
    let mut rng = Rng::with_seed(11);
    world
        .compute(0, |cpu| {
            super::super::compute_in(cpu, SSE, &mut rng)?;
            cpu.ldmxcsr(0x9fc0)?;
            let occupied = 0xc0;
            cpu.write_x87(X87Registers {
                occupied,
                physical: [[0x3f; 10]; 8],
                ..X87Registers::INITIAL
            })
        })
        .unwrap();
    let ours = export(&world, Form::SignalFrame);
    assert_eq!(long(&ours, 512) & (X87 | SSE), X87 | SSE);
    FRAMES.with_borrow_mut(|(put, _)| put.clone_from(&ours));
    let after = raise();
    assert_eq!(after.0[..6], ours[..6], "x87's words");
    assert_eq!(after.0[..2], FCW_INITIAL.to_le_bytes());
    assert_eq!(after.0[24..28], ours[24..28], "MXCSR");
    assert_eq!(after.0[32..416], ours[32..416], "x87 and XMM");
    assert_eq!(models::this_machine().name, "this machine");
}
