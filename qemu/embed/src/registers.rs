//! What the LWPs have in their registers, as they compute it without them.

/// The registers as FXSAVE writes them: controls in 0 and 1, ST from 2, XMM from 10. Intel SDM, volume 2A, "FXSAVE".
pub(crate) type Registers = [u128; 32];

/// What a process finds at its first use: the control words of FNINIT and of a reset, all else empty or zero.
pub(crate) const INITIAL: Registers = {
    let mut registers = [0; 32];
    registers[0] = 0x037f;
    registers[1] = 0x1f80 << 64;
    registers
};

/// What the registers must hold after `n` additions: XMM0 to 7 and ST0 are sums, XMM8 to 15 and ST4 are added to
/// them. All are small integers, so each sum is exact, though each LWP rounds in its own way.
pub(crate) fn registers_after(n: u32, seed: u32) -> Registers {
    let double = |value: u32| u128::from(f64::from(value).to_bits());
    let rounding = u128::from(seed % 4);
    let mut registers = INITIAL;
    registers[0] |= (0x400 * rounding) | (0xff << 32); // FCW, and no register is empty
    registers[1] |= (0x2000 * rounding) << 64; // MXCSR
    for number in 0..8 {
        let [st, sum, summand] = [2, 10, 18].map(|first| first + number as usize);
        let values = [1, 1000].map(|lane| lane + number);
        let sums = values.map(|value| seed + n * value);
        registers[st] = extended(seed + if number == 0 { n * (seed + 4) } else { number });
        registers[sum] = double(sums[0]) | double(sums[1]) << 64;
        registers[summand] = double(values[0]) | double(values[1]) << 64;
    }
    registers
}

/// An integer above 0 as the x87 FPU holds it. Intel SDM, volume 1, "x87 FPU Data Types".
fn extended(value: u32) -> u128 {
    let shift = u64::from(value).leading_zeros();
    u128::from(16383 + 63 - shift) << 64 | u128::from(value) << shift
}
