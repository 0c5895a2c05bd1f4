//! Which images the machine refuses, and which the mock: `#GP` reaches user mode as a signal.

use std::arch::asm;
use std::sync::Once;

use pcu9_mock::component::{AVX, SSE, X87};
use pcu9_mock::{EAX_XSAVEC, HeaderCheck, Mock, Model};

use super::native::{AREA_BYTES, Area, model, universe};
use super::power_on;
use pcu9::x86_64::machine::Machine;

/// `xrstor64 [rdi]` and `fxrstor64 [rdi]`, the instructions that may fault here.
const XRSTOR: [u8; 4] = [0x48, 0x0f, 0xae, 0x2f];
const FXRSTOR: [u8; 4] = [0x48, 0x0f, 0xae, 0x0f];

/// Steps over a restore that faulted, and says so in R8; a fault anywhere else ends the process.
extern "C" fn step_over(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel hands the handler a valid context, which nobody else uses.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let (rip, r8) = (libc::REG_RIP as usize, libc::REG_R8 as usize);
    let at = std::ptr::without_provenance::<[u8; 4]>(usize::try_from(registers[rip]).unwrap());
    // SAFETY: the instruction that was fetched from there is four bytes long, or the process ends either way.
    let instruction = unsafe { at.read_unaligned() };
    if instruction == XRSTOR || instruction == FXRSTOR {
        registers[rip] += 4;
        registers[r8] = 1;
    } else {
        // SAFETY: back to the default: the same fault comes again and is the end.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeros is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = step_over as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler has the signature that `SA_SIGINFO` asks for and touches its context alone.
        let result =
            unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
        assert_eq!(result, 0, "sigaction");
    });
}

/// Does the machine refuse to restore from there?
fn faults(area: *const u8, rfbm: Option<u64>) -> bool {
    install();
    let mxcsr = 0x1f80_u32;
    let mask = u32::try_from(rfbm.unwrap_or(0)).unwrap();
    let fault: u64;
    // SAFETY: a fault is stepped over; the clobbers name what a restore changes, control words are put back.
    unsafe {
        asm!(
            "xor r8d, r8d",
            "xor edx, edx",
            "cmp ecx, 0",
            "je 2f",
            "xrstor64 [rdi]",
            "jmp 3f",
            "2: fxrstor64 [rdi]",
            "3: fninit",
            "ldmxcsr [rsi]",
            "mov rax, r8",
            in("rdi") area,
            in("rsi") &raw const mxcsr,
            in("ecx") u32::from(rfbm.is_some()),
            inlateout("rax") u64::from(mask) => fault,
            clobber_abi("C"),
        );
    }
    fault == 1
}

/// The same of the mock.
fn faults_on_mock(model: &'static Model, area: *const u8, rfbm: Option<u64>) -> bool {
    power_on(model);
    let area = std::ptr::NonNull::new(area.cast_mut()).unwrap();
    match rfbm {
        // SAFETY: an area of the test's is long enough; nobody's registers are in a mock.
        Some(rfbm) => unsafe { Mock::xrstor(area, rfbm) },
        // SAFETY: as above.
        None => unsafe { Mock::fxrstor(area) },
    }
    .is_err()
}

/// Both refuse the area, or both take it.
fn agree(area: &mut Area, rfbm: Option<u64>, what: &str) -> bool {
    let pointer = area.pointer().as_ptr();
    let native = faults(pointer, rfbm);
    assert_eq!(
        native,
        faults_on_mock(model_with_header_check(), pointer, rfbm),
        "{what}: the machine faults: {native}; RFBM {rfbm:x?}"
    );
    native
}

/// The machine's model with the header check that the machine has: bytes 24 to 63 are its choice.
fn model_with_header_check() -> &'static Model {
    static MODEL: std::sync::OnceLock<Model> = std::sync::OnceLock::new();
    MODEL.get_or_init(|| {
        let mut area = Area::initial();
        area.0[512 + 24] = 1;
        let header_check = if faults(area.pointer().as_ptr(), Some(universe())) {
            HeaderCheck::Bytes8To63
        } else {
            HeaderCheck::Bytes8To23
        };
        Model {
            header_check,
            ..*model()
        }
    })
}

#[test]
fn reserved_bytes_of_the_header_are_refused_alike() {
    for at in 520..576 {
        for bit in 0..8 {
            let mut area = Area::initial();
            area.0[at] = 1 << bit;
            if (at, bit) != (527, 7) {
                let refused = agree(
                    &mut area,
                    Some(universe()),
                    &format!("byte {at}, bit {bit}"),
                );
                assert!(refused || at >= 536, "byte {at}, bit {bit} is taken");
            }
        }
    }
}

#[test]
fn components_that_are_not_enabled_are_refused_alike() {
    // SAFETY: `model` has found CR4.OSXSAVE set.
    let xcr0 = unsafe { std::arch::x86_64::_xgetbv(0) };
    for number in 0..64 {
        // What the machine enables and the mock does not, the test cannot compare.
        if universe() & 1 << number == 0 && xcr0 & 1 << number != 0 {
            continue;
        }
        let mut area = Area::initial();
        area.set_long(512, 1 << number);
        let refused = agree(&mut area, Some(X87), &format!("component {number}"));
        assert_eq!(refused, universe() & 1 << number == 0);
    }
}

/// The standard form takes `MXCSR` whenever SSE or AVX is asked for, whatever `XSTATE_BV` says.
#[test]
fn reserved_bits_of_mxcsr_are_refused_alike() {
    let mut refusals = 0;
    for bit in 0..32 {
        for rfbm in [X87, SSE, AVX, SSE | X87, universe()] {
            if rfbm & !universe() != 0 {
                continue;
            }
            for xstate_bv in [0, X87, SSE, universe()] {
                let mut area = Area::initial();
                area.set_long(512, xstate_bv);
                area.0[24..28].copy_from_slice(&(1_u32 << bit).to_le_bytes());
                let what = format!("MXCSR bit {bit}, XSTATE_BV {xstate_bv:#x}");
                refusals += u32::from(agree(&mut area, Some(rfbm), &what));
            }
        }
        let mut area = Area::initial();
        area.0[24..28].copy_from_slice(&(1_u32 << bit).to_le_bytes());
        refusals += u32::from(agree(&mut area, None, &format!("FXRSTOR, MXCSR bit {bit}")));
    }
    assert!(refusals > 100, "{refusals}");
}

#[test]
fn compacted_headers_are_refused_alike() {
    let bits = [
        0,
        X87,
        SSE,
        AVX,
        X87 | SSE,
        X87 | SSE | AVX,
        1 << 40,
        1 << 62,
    ];
    let mut seen = [0, 0];
    for xstate_bv in bits {
        for xcomp_bv in bits {
            for reserved in [None, Some(16), Some(24), Some(63)] {
                let mut area = Area::initial();
                area.set_long(512, xstate_bv);
                area.set_long(520, xcomp_bv | 1 << 63);
                if let Some(at) = reserved {
                    area.0[512 + at] = 1;
                }
                let what = format!("{xstate_bv:#x} of {xcomp_bv:#x}, reserved byte {reserved:?}");
                let refused = agree(&mut area, Some(universe()), &what);
                seen[usize::from(refused)] += 1;
            }
        }
    }
    let has_compaction = model().extensions & EAX_XSAVEC != 0;
    assert!(seen[1] > 0 && (seen[0] > 0) == has_compaction, "{seen:?}");
}

#[test]
fn areas_that_are_not_aligned_are_refused_alike() {
    for offset in 1..=64 {
        let mut area = Area::initial();
        area.0.copy_within(..1024, offset);
        let shifted = area.pointer().as_ptr().wrapping_add(offset);
        for (rfbm, align) in [(Some(universe()), 64), (None, 16)] {
            let native = faults(shifted, rfbm);
            assert_eq!(native, faults_on_mock(model(), shifted, rfbm), "{offset}");
            assert_eq!(native, offset % align != 0, "{offset}");
        }
    }
}

/// An area whose end is not mapped: refused where the end is loaded, taken where it is not asked for. Where it is asked for and
/// `XSTATE_BV` calls it initial, a processor may read it or not (Intel SDM, volume 1, "Memory Access by the XSAVE Feature Set";
/// Zen 3 does), so that case is not compared.
#[test]
fn an_area_that_ends_on_a_page_that_is_not_mapped_is_refused_alike() {
    const PAGE: usize = 4096;
    if universe() & AVX == 0 {
        super::not_run("an area that ends on a page that is not mapped: this machine has no AVX");
        return;
    }
    // SAFETY: a fresh mapping of two pages.
    let pages = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            2 * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    }
    .cast::<u8>();
    let hole = pages.wrapping_add(PAGE);
    // SAFETY: the second page is the test's own.
    let result = unsafe { libc::mprotect(hole.cast(), PAGE, libc::PROT_NONE) };
    assert_eq!(result, 0, "mprotect");
    // Header and legacy region before the hole, AVX behind it.
    let area = hole.wrapping_sub(576);
    for (xstate_bv, rfbm, expected) in [
        (X87 | SSE, X87 | SSE, false),
        (AVX, universe(), true),
        (X87 | SSE | AVX, universe(), true),
        (X87 | SSE | AVX, X87 | SSE, false),
    ] {
        let mut image = Area::initial();
        image.set_long(512, xstate_bv);
        // SAFETY: the first page is mapped up to the hole.
        unsafe { area.copy_from_nonoverlapping(image.0.as_ptr(), 576) };
        assert_eq!(faults(area, Some(rfbm)), expected, "{xstate_bv:#x}");
        power_on(model());
        Mock::with(|cpu| cpu.memory.unmap(hole.addr()..hole.addr() + PAGE));
        let pointer = std::ptr::NonNull::new(area).unwrap();
        // SAFETY: what is not mapped is declared so.
        let modelled = unsafe { Mock::xrstor(pointer, rfbm) };
        assert_eq!(modelled.is_err(), expected, "the mock, {xstate_bv:#x}");
    }
    assert!(AREA_BYTES >= model().standard_bytes(universe()));
    // SAFETY: nobody uses the pages any more.
    unsafe { libc::munmap(pages.cast(), 2 * PAGE) };
}
