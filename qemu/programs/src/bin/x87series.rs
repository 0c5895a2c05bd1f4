//! e, pi and the golden ratio in the x87 FPU's 80-bit format, by `+ - * /` and square root alone.
//!
//! e is the sum of 1/n!, and pi is Machin's 16 atan(1/5) - 4 atan(1/239) with the arctangents as series. Each is computed
//! with every precision (24, 53 and 64 bits) and every rounding mode that the control word knows (Intel SDM, volume 1, "x87
//! FPU Control Word"), and the series yield while their sums are on the FPU's stack: who loses the control word or a bit
//! beyond the 64th of a stack register shows another number.

#![no_std]
#![no_main]

use core::arch::asm;

use pcu9_programs::syscalls::SCHED_YIELD;
use pcu9_programs::{fail, program, say};

program!(main);

/// How often everything is computed.
const ROUNDS: u32 = 50;

/// The three numbers to 64 bits, as anyone can find them published: rounded to nearest.
const E: Extended = Extended::new(0x4000, 0xADF8_5458_A2BB_4A9B);
const PI: Extended = Extended::new(0x4000, 0xC90F_DAA2_2168_C235);
const GOLDEN: Extended = Extended::new(0x3FFF, 0xCF1B_BCDC_BFA5_3E0B);

/// A number in memory as FSTP stores it: 64 bits of significand with an explicit leading 1, 15 bits of exponent, a sign.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Extended {
    significand: u64,
    sign_exponent: u16,
}

impl Extended {
    const ZERO: Extended = Extended::new(0, 0);

    const fn new(sign_exponent: u16, significand: u64) -> Self {
        Extended {
            significand,
            sign_exponent,
        }
    }

    /// How many units of the significand's last place lie between two numbers of the same exponent.
    fn distance(self, other: Extended) -> u64 {
        if self.sign_exponent == other.sign_exponent {
            self.significand.abs_diff(other.significand)
        } else {
            u64::MAX
        }
    }
}

impl core::fmt::Display for Extended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:04x}:{:016x}", self.sign_exponent, self.significand)
    }
}

/// Precision and rounding, as they stand in the control word; every exception stays masked.
struct Control(u16);

impl Control {
    /// e: sum and term both start at 1; the term is divided by 1, 2, 3, .. and added.
    fn e(&self) -> Extended {
        let mut sum = Extended::ZERO;
        let mut n = 0_u32;
        // SAFETY: the pointers are to variables of the sizes that the instructions use; the x87 stack is empty before and
        // after; `clobber_abi` names all of it; sched_yield(2) touches no memory.
        unsafe {
            asm!(
                "fninit",
                "fldcw [r12]",
                "fld1",                    // sum
                "fld1",                    // term, sum
                "2:",
                "add dword ptr [r13], 1",
                "fidiv dword ptr [r13]",   // term / n, sum
                "fadd st(1), st(0)",       // term, sum + term
                "test dword ptr [r13], 3", // yields at every fourth term
                "jnz 3f",
                "mov eax, {sched_yield}",
                "syscall",
                "3: cmp dword ptr [r13], 26",
                "jne 2b",
                "fstp st(0)",
                "fstp tbyte ptr [r14]",
                "fninit",
                sched_yield = const SCHED_YIELD,
                in("r12") &raw const self.0,
                in("r13") &raw mut n,
                in("r14") &raw mut sum,
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
        sum
    }

    /// atan(1/k) = 1/k - 1/3k^3 + 1/5k^5 - ..
    fn arctangent(&self, k: u32, terms: u32) -> Extended {
        let mut sum = Extended::ZERO;
        let mut odd = 1_u32;
        // SAFETY: as in `e`.
        unsafe {
            asm!(
                "fninit",
                "fldcw [r12]",
                "fld1",
                "fidiv dword ptr [r15]",      // power = 1/k
                "fld st(0)",
                "fxch st(1)",                 // power, sum
                "2:",
                "add dword ptr [r13], 2",
                "fidiv dword ptr [r15]",
                "fidiv dword ptr [r15]",
                "fchs",                       // -power/k^2, sum
                "fld st(0)",
                "fidiv dword ptr [r13]",      // power/n, power, sum
                "faddp st(2), st(0)",         // power, sum + power/n
                "test dword ptr [r13], 8",    // yields in four terms of eight
                "jnz 3f",
                "mov eax, {sched_yield}",
                "syscall",
                "3: sub r9d, 1",
                "jnz 2b",
                "fstp st(0)",
                "fstp tbyte ptr [r14]",
                "fninit",
                sched_yield = const SCHED_YIELD,
                in("r12") &raw const self.0,
                in("r13") &raw mut odd,
                in("r14") &raw mut sum,
                in("r15") &raw const k,
                inout("r9d") terms => _,
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
        sum
    }

    /// pi = 4 (4 atan(1/5) - atan(1/239))
    fn pi(&self) -> Extended {
        let (fifth, small) = (self.arctangent(5, 28), self.arctangent(239, 9));
        let mut pi = Extended::ZERO;
        // SAFETY: as in `e`.
        unsafe {
            asm!(
                "fninit",
                "fldcw [{control}]",
                "fld tbyte ptr [{small}]",
                "fld tbyte ptr [{fifth}]",
                "fimul dword ptr [{four}]",
                "fsubrp st(1), st(0)",     // 4 fifth - small
                "fimul dword ptr [{four}]",
                "fstp tbyte ptr [{pi}]",
                "fninit",
                control = in(reg) &raw const self.0,
                small = in(reg) &raw const small,
                fifth = in(reg) &raw const fifth,
                four = in(reg) &4_u32,
                pi = in(reg) &raw mut pi,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        pi
    }

    /// (1 + sqrt 5) / 2
    fn golden(&self) -> Extended {
        let mut golden = Extended::ZERO;
        // SAFETY: as in `e`.
        unsafe {
            asm!(
                "fninit",
                "fldcw [{control}]",
                "fild dword ptr [{five}]",
                "fsqrt",
                "fld1",
                "faddp st(1), st(0)",
                "fidiv dword ptr [{two}]",
                "fstp tbyte ptr [{golden}]",
                "fninit",
                control = in(reg) &raw const self.0,
                five = in(reg) &5_u32,
                two = in(reg) &2_u32,
                golden = in(reg) &raw mut golden,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        golden
    }
}

const PRECISIONS: [(u32, u16); 3] = [(24, 0x000), (53, 0x200), (64, 0x300)];
const ROUNDINGS: [(&str, u16); 4] = [
    ("nearest", 0x000),
    ("down", 0x400),
    ("up", 0x800),
    ("to zero", 0xC00),
];

/// Computes the three numbers in each rounding mode and checks what can be known about them.
fn compute(bits: u32, precision: u16) -> [[Extended; 3]; 4] {
    let rows = ROUNDINGS.map(|(_, rounding)| {
        let control = Control(0x007F | precision | rounding);
        [control.e(), control.pi(), control.golden()]
    });
    for row in &rows {
        for ((name, expected), &seen) in [("e", E), ("pi", PI), ("golden", GOLDEN)].iter().zip(row)
        {
            // Some 40 operations, each wrong by one unit of the chosen precision's last place at most.
            let allowed = 40 << (64 - bits);
            if expected.distance(seen) > allowed {
                fail!("x87series: {name} with {bits} bits: expected about {expected}, saw {seen}");
            }
        }
    }
    // Every term of e is positive, so rounding down is never above rounding up, and the same as rounding to zero.
    let [nearest, down, up, to_zero] = rows.map(|row| row[0]);
    let ordered = down.significand <= nearest.significand && nearest.significand <= up.significand;
    if !ordered || down == up || down != to_zero {
        fail!(
            "x87series: e with {bits} bits: expected down = to zero <= nearest <= up and down < up, \
             saw {down} {to_zero} {nearest} {up}"
        );
    }
    rows
}

fn main() {
    say!("x87series: e, pi and the golden ratio, as sign and exponent : significand");
    for (bits, precision) in PRECISIONS {
        let rows = compute(bits, precision);
        for ((rounding, _), [e, pi, golden]) in ROUNDINGS.iter().zip(&rows) {
            say!("{bits} bits {rounding:<8} {e} {pi} {golden}");
        }
        for round in 1..ROUNDS {
            let again = compute(bits, precision);
            for (expected, seen) in rows.iter().flatten().zip(again.iter().flatten()) {
                if expected != seen {
                    fail!("x87series: round {round}, {bits} bits: expected {expected}, saw {seen}");
                }
            }
        }
    }
}
