//! Computes with integers alone: primes, a thousand digits of e, and a SHA-256 over both. It must never use the FPU.
//!
//! A kernel that switches the FPU lazily takes no trap for this program, and saves and restores nothing. So there is not one
//! x87, SSE or AVX instruction in its file, although Rust's x86-64 target lets the compiler move and clear memory by SSE
//! whenever it likes. Every number in memory is therefore an atomic one, which a compiler moves by itself and as it is; the
//! printing does without `core::fmt`, and nothing here can panic.
//!
//! Published: 78498 primes are below a million; e begins with 2.71828 18284 59045; FIPS 180-4's example "abc".

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pcu9_programs::program;
use pcu9_programs::syscalls::{exit, sched_yield, write_all};

program!(main);

/// An array that is read and written one word at a time.
struct Words<const N: usize>([AtomicU32; N]);

impl<const N: usize> Words<N> {
    const fn new() -> Self {
        Words([const { AtomicU32::new(0) }; N])
    }

    /// Reads a word; beyond the end there are zeros.
    fn get(&self, i: usize) -> u32 {
        self.0.get(i).map_or(0, |word| word.load(Relaxed))
    }

    /// Writes a word; beyond the end nothing is kept.
    fn set(&self, i: usize, value: u32) {
        if let Some(word) = self.0.get(i) {
            word.store(value, Relaxed);
        }
    }
}

fn low_half(number: u64) -> u32 {
    (number & 0xFFFF_FFFF) as u32
}

fn print(text: &str) {
    write_all(1, text.as_bytes());
}

/// Prints a number of 16 digits at most, with zeros before it up to so many digits.
///
/// The letters are collected in one wide integer, the last digit first. Division by a constant cannot fail, so the base is
/// one.
fn print_number<const BASE: u64>(mut number: u64, digits: usize) {
    let (mut letters, mut count) = (0_u128, 0);
    while count < digits || number > 0 {
        let digit = number % BASE;
        let letter = digit + u64::from(if digit < 10 { b'0' } else { b'a' - 10 });
        letters = (letters << 8) | u128::from(letter);
        number /= BASE;
        count += 1;
    }
    if let Some(bytes) = letters.to_le_bytes().get(..count) {
        write_all(1, bytes);
    }
}

/// Ends the program when a check fails: status 1, and a line that says what was expected and what was seen.
fn check(what: &str, expected: u64, seen: u64) {
    if expected != seen {
        print("integers: ");
        print(what);
        print(": expected ");
        print_number::<10>(expected, 1);
        print(", saw ");
        print_number::<10>(seen, 1);
        print("\n");
        exit(1);
    }
}

/// How often the primes are found.
const ROUNDS: u32 = 5;
const LIMIT: usize = 1_000_000;
/// The sieve of Eratosthenes, one bit for each odd number: set for those that are not prime.
static SIEVE: Words<{ LIMIT / 64 + 1 }> = Words::new();

/// Tells whether an odd number was crossed out.
fn crossed_out(n: usize) -> bool {
    SIEVE.get(n / 64) >> (n / 2 % 32) & 1 != 0
}

/// Crosses out the odd multiples of every odd prime.
fn sieve() {
    let mut i = 0;
    while i <= LIMIT / 64 {
        SIEVE.set(i, 0);
        i += 1;
    }
    let mut n = 3;
    while n * n < LIMIT {
        if !crossed_out(n) {
            let mut multiple = n * n;
            while multiple < LIMIT {
                let bit = 1 << (multiple / 2 % 32);
                SIEVE.set(multiple / 64, SIEVE.get(multiple / 64) | bit);
                multiple += 2 * n;
            }
            sched_yield();
        }
        n += 2;
    }
}

fn primes() {
    let (mut count, mut sum) = (0_u64, 0_u64);
    let mut round = 0;
    while round < ROUNDS {
        sieve();
        (count, sum) = (1, 2);
        let mut n = 3;
        while n < LIMIT {
            if !crossed_out(n) {
                count += 1;
                sum += n as u64;
            }
            n += 2;
        }
        check("number of primes", 78_498, count);
        check("sum of primes", 37_550_402_023, sum);
        round += 1;
    }
    print("primes below 1000000: ");
    print_number::<10>(count, 1);
    print(", their sum ");
    print_number::<10>(sum, 1);
    print("\n");
}

/// Digits after the point, nine in a word.
const DIGITS: usize = 1008;
static E_DIGITS: Words<{ DIGITS / 9 }> = Words::new();
/// e - 2 = 1/2! + 1/3! + .. is 0.1111.. in the system of numbers where the n-th place after the first is worth 1/n!.
const PLACES: usize = 480;
static PLACE: Words<PLACES> = Words::new();

/// Rabinowitz and Wagon's spigot: multiplying by a power of ten drives its digits out before the point.
fn digits_of_e() {
    let mut n = 2;
    while n < PLACES {
        PLACE.set(n, 1);
        n += 1;
    }
    print("e = 2.");
    let mut group = 0;
    while group < DIGITS / 9 {
        let mut carry = 0_u64;
        let mut n = PLACES - 1;
        while n >= 2 {
            let product = u64::from(PLACE.get(n)) * 1_000_000_000 + carry;
            // n is never zero, but where a division can fail, a panic with all its printing would be linked in.
            PLACE.set(n, low_half(product.checked_rem(n as u64).unwrap_or(0)));
            carry = product.checked_div(n as u64).unwrap_or(0);
            n -= 1;
        }
        E_DIGITS.set(group, low_half(carry));
        if group < 10 {
            print_number::<10>(carry, 9);
        }
        if group % 16 == 0 {
            sched_yield();
        }
        group += 1;
    }
    print("..");
    print_number::<10>(u64::from(E_DIGITS.get(DIGITS / 9 - 1)), 9);
    print("\n");
    check("e, first digits", 718_281_828, u64::from(E_DIGITS.get(0)));
    // Digits 1000 to 1008 after the point.
    check(
        "e, last digits",
        402_123_407,
        u64::from(E_DIGITS.get(DIGITS / 9 - 1)),
    );
}

/// The state and the message schedule of SHA-256 (FIPS 180-4).
static HASH: Words<8> = Words::new();
static SCHEDULE: Words<64> = Words::new();

/// The constants: the first 32 bits after the point of the square roots of the first 8 primes, and of the cube roots of the
/// first 64. The compiler computes them.
static INITIAL: Words<8> = roots(2);
static ROUND: Words<64> = roots(3);

const fn roots<const N: usize>(degree: u32) -> Words<N> {
    let mut words = Words::new();
    let (mut i, mut n) = (0, 2_u128);
    while i < N {
        let mut divisor = 2;
        while n % divisor != 0 {
            divisor += 1;
        }
        if divisor == n {
            words.0[i] = AtomicU32::new((root(n << (32 * degree), degree) & 0xFFFF_FFFF) as u32);
            i += 1;
        }
        n += 1;
    }
    words
}

/// Gives the root, rounded down, a bit at a time from the highest; 36 bits are enough for the cube root of 311 times 2^96.
const fn root(number: u128, degree: u32) -> u128 {
    let (mut root, mut bit) = (0_u128, 1 << 35);
    while bit > 0 {
        if (root | bit).pow(degree) <= number {
            root |= bit;
        }
        bit >>= 1;
    }
    root
}

fn start_hash() {
    let mut i = 0;
    while i < 8 {
        HASH.set(i, INITIAL.get(i));
        i += 1;
    }
}

/// Hashes one block, which is in the schedule's first 16 words.
#[expect(clippy::many_single_char_names, reason = "the names are FIPS 180-4's")]
fn hash_block() {
    let mut t = 16;
    while t < 64 {
        let (w2, w15) = (SCHEDULE.get(t - 2), SCHEDULE.get(t - 15));
        let s0 = w15.rotate_right(7) ^ w15.rotate_right(18) ^ (w15 >> 3);
        let s1 = w2.rotate_right(17) ^ w2.rotate_right(19) ^ (w2 >> 10);
        let sum = s1.wrapping_add(SCHEDULE.get(t - 7)).wrapping_add(s0);
        SCHEDULE.set(t, sum.wrapping_add(SCHEDULE.get(t - 16)));
        t += 1;
    }
    let (mut a, mut b, mut c, mut d) = (HASH.get(0), HASH.get(1), HASH.get(2), HASH.get(3));
    let (mut e, mut f, mut g, mut h) = (HASH.get(4), HASH.get(5), HASH.get(6), HASH.get(7));
    let mut t = 0;
    while t < 64 {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choice);
        let t1 = t1.wrapping_add(ROUND.get(t)).wrapping_add(SCHEDULE.get(t));
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(s0).wrapping_add(majority));
        t += 1;
    }
    let add = |i, value: u32| HASH.set(i, HASH.get(i).wrapping_add(value));
    add(0, a);
    add(1, b);
    add(2, c);
    add(3, d);
    add(4, e);
    add(5, f);
    add(6, g);
    add(7, h);
}

/// Hashes the first `length` words of an array, big-endian, and the padding of FIPS 180-4 after them.
fn hash_words<const N: usize>(words: &Words<N>, length: usize) {
    start_hash();
    let blocks = length / 16 + if length % 16 < 14 { 1 } else { 2 };
    let mut i = 0;
    while i < 16 * blocks {
        let word = if i < length {
            words.get(i)
        } else if i == length {
            0x8000_0000
        } else if i == 16 * blocks - 1 {
            low_half(32 * length as u64)
        } else {
            0
        };
        SCHEDULE.set(i % 16, word);
        i += 1;
        if i % 16 == 0 {
            hash_block();
        }
        if i % 1024 == 0 {
            sched_yield();
        }
    }
}

fn print_hash(of: &str) {
    print("SHA-256 of ");
    print(of);
    print(": ");
    let mut i = 0;
    while i < 8 {
        print_number::<16>(u64::from(HASH.get(i)), 8);
        i += 1;
    }
    print("\n");
}

/// FIPS 180-4's example: three letters, a set bit, zeros, and the length in bits.
fn hash_abc() {
    start_hash();
    let mut i = 0;
    while i < 16 {
        SCHEDULE.set(i, 0);
        i += 1;
    }
    SCHEDULE.set(0, 0x6162_6380);
    SCHEDULE.set(15, 24);
    hash_block();
    print_hash("abc");
    check(
        "SHA-256 of abc, first word",
        0xba78_16bf,
        u64::from(HASH.get(0)),
    );
    check(
        "SHA-256 of abc, last word",
        0xf200_15ad,
        u64::from(HASH.get(7)),
    );
}

fn main() {
    print("integers: primes, digits of e, SHA-256\n");
    primes();
    digits_of_e();
    hash_abc();
    hash_words(&E_DIGITS, DIGITS / 9);
    print_hash("the digits of e");
    hash_words(&SIEVE, LIMIT / 64 + 1);
    print_hash("the sieve");
}
