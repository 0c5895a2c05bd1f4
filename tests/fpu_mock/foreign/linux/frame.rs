//! A real signal: what Linux puts into the frame is accepted, and what pcu9 puts there is what Linux restores.

use std::arch::asm;
use std::cell::RefCell;
use std::ptr;

use fastrand::Rng;
use pcu9::x86_64::fpu::FPU;
use pcu9::x86_64::fpu::foreign::{Form, UserImage};
use pcu9_mock::component::X87;
use pcu9_mock::{FCW_INITIAL, MXCSR_INITIAL, Mock, X87Registers, models};

use super::super::{check, components, compute_in, export, import, long};
use super::host;

thread_local! {
    /// The image that the handler puts into the frame, and the one that it found there.
    static FRAMES: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Where the registers go when the signal is over: the standard format of an XSAVE area.
#[repr(C, align(64))]
struct After([u8; 4096]);

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
        frame[..put.len()].copy_from_slice(put);
    });
}

/// Raises the signal, and looks at the unit's registers as soon as it is over.
fn raise() -> After {
    let mut after = After([0; 4096]);
    let mxcsr = MXCSR_INITIAL;
    let mask = u32::try_from(components()).unwrap();
    // SAFETY: a system call.
    let pid = unsafe { libc::getpid() };
    // SAFETY: as above.
    let tid = unsafe { libc::gettid() };
    // SAFETY: TGKILL, and the handler changes no register but those of the FPU, which are clobbered; control words and the x87
    // stack are put back. The area is longer than the unit's components. SYSCALL destroys RCX and R11.
    unsafe {
        asm!(
            "syscall",
            "mov eax, r14d",
            "xor edx, edx",
            "xsave64 [r12]",
            "fninit",
            "ldmxcsr [r13]",
            in("r12") &raw mut after,
            in("r13") &raw const mxcsr,
            in("r14") mask,
            in("rax") libc::SYS_tgkill,
            in("rdi") pid,
            in("rsi") tid,
            in("rdx") libc::SIGUSR1,
            clobber_abi("C"),
        );
    }
    after
}

/// Linux's frame without the components that the unit has not: shorter, and the two sizes, the masks and the second magic say so.
fn cut(linux: &[u8]) -> Vec<u8> {
    let length = Form::SignalFrame.bytes_on::<Mock>();
    let size = length - 4;
    let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let mut image = linux[..length].to_vec();
    image[468..472].copy_from_slice(&word(length));
    image[472..480].copy_from_slice(&(long(linux, 472) & components()).to_le_bytes());
    image[480..484].copy_from_slice(&word(size));
    image[512..520].copy_from_slice(&(long(linux, 512) & components()).to_le_bytes());
    image[size..].copy_from_slice(&linux[linux.len() - 4..]);
    image
}

/// What Linux says of its frame, in the layout that the unit reads and writes.
fn check_layout(linux: &[u8]) {
    let word = |at: usize| u32::from_le_bytes(*linux[at..].first_chunk().unwrap());
    let length = u32::try_from(linux.len()).unwrap();
    let said = [464, 468, 480, linux.len() - 4].map(word);
    assert_eq!(said, [0x4650_5853, length, length - 4, 0x4650_5845]);
    assert_eq!(components() & !long(linux, 472), 0, "components");
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

    let world = host();
    let before = raise();
    let linux = FRAMES.with_borrow(|(_, found)| found.clone());
    check_layout(&linux);
    let frame = cut(&linux);
    let theirs = long(&linux, 472) & !components();
    if theirs == 0 {
        assert_eq!(frame, linux, "the frame as it came");
    } else {
        let error = UserImage::<Mock>::check(Form::SignalFrame, &linux, u64::MAX).unwrap_err();
        super::say(&format!(
            "NOT RUN: Linux's signal frame as it came, for it names components {theirs:#x} that the unit has not ({error}); it was \
             read without them"
        ));
    }
    let image = check(Form::SignalFrame, &frame);
    assert_eq!(frame[160..416], before.0[160..416], "XMM in the frame");
    import(&world, &image).unwrap();
    let ours = export(&world, Form::SignalFrame);
    assert_eq!(
        ours[464..528],
        frame[464..528],
        "software's bytes, XSTATE_BV"
    );
    assert_eq!(ours[ours.len() - 4..], frame[frame.len() - 4..]);

    let invalid = pcu9::pcu::Validity::Invalid;
    let mut current = world.current(0);
    world.pcu.discard(&mut current, FPU, invalid).unwrap();
    world.starts_over(0);
    let (mut rng, all_but_x87) = (Rng::with_seed(11), components() & !X87);
    world
        .compute(0, |cpu| {
            compute_in(cpu, all_but_x87, &mut rng)?;
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
    assert_eq!(long(&ours, 512), components());
    FRAMES.with_borrow_mut(|(put, _)| put.clone_from(&ours));
    let after = raise();
    assert_eq!(after.0[..6], ours[..6], "x87's words");
    assert_eq!(after.0[..2], FCW_INITIAL.to_le_bytes());
    assert_eq!(after.0[24..28], ours[24..28], "MXCSR");
    assert_eq!(after.0[32..416], ours[32..416], "x87 and XMM");
    // What lies behind the header is restored from a frame whose sizes and magics Linux believes, and from no other.
    for component in models::this_machine().components {
        if components() & component.bit() != 0 {
            let place = component.offset..component.offset + component.bytes;
            let number = component.number;
            assert_eq!(after.0[place.clone()], ours[place], "component {number}");
        }
    }
}
