//! The fast Fourier transform (Cooley and Tukey, 1965) and its inverse, in double precision.
//!
//! Sines and cosines come from the `libm` crate, which computes them by `+ - * /`; the CPU's own differ between models.
//! Checks: an impulse has a flat spectrum, energy is kept (Parseval), and the inverse gives the input back.

#![no_std]
#![no_main]

use core::f64::consts::PI;

use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::syscalls::{sched_yield, zeroed};
use pcu9_programs::{fail, program, say};

program!(main);

const LOG2_POINTS: u32 = 12;
const POINTS: usize = 1 << LOG2_POINTS;
const ROUNDS: u64 = 8;

fn points() -> f64 {
    f64::from(1_u32 << LOG2_POINTS)
}

/// Complex numbers as two arrays.
struct Signal {
    re: &'static mut [f64],
    im: &'static mut [f64],
}

impl Signal {
    fn new(points: usize) -> Self {
        Signal {
            re: zeroed(points),
            im: zeroed(points),
        }
    }

    fn swap(&mut self, i: usize, j: usize) {
        self.re.swap(i, j);
        self.im.swap(i, j);
    }

    fn energy(&self) -> f64 {
        let mut sum = 0.0;
        for (re, im) in self.re.iter().zip(&*self.im) {
            sum += re * re + im * im;
        }
        sum
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        for (re, im) in self.re.iter().zip(&*self.im) {
            digest.add(re.to_bits());
            digest.add(im.to_bits());
        }
        digest.0
    }

    /// Transforms in place; `roots` holds the powers of exp(-2 pi i / POINTS).
    fn transform(&mut self, roots: &Signal) {
        for i in 0..POINTS {
            let j = i.reverse_bits() >> (usize::BITS - LOG2_POINTS);
            if i < j {
                self.swap(i, j);
            }
        }
        let mut half = 1;
        while half < POINTS {
            for start in (0..POINTS).step_by(2 * half) {
                for k in 0..half {
                    let root = k * (POINTS / 2 / half);
                    self.butterfly(
                        start + k,
                        start + k + half,
                        (roots.re[root], roots.im[root]),
                    );
                }
            }
            half *= 2;
            sched_yield();
        }
    }

    /// Replaces a and b by a + w b and a - w b.
    fn butterfly(&mut self, a: usize, b: usize, (w_re, w_im): (f64, f64)) {
        let re = w_re * self.re[b] - w_im * self.im[b];
        let im = w_re * self.im[b] + w_im * self.re[b];
        (self.re[b], self.im[b]) = (self.re[a] - re, self.im[a] - im);
        (self.re[a], self.im[a]) = (self.re[a] + re, self.im[a] + im);
    }

    /// The inverse, by the same code: exchange the two parts before and after, divide by the number of points.
    fn inverse(&mut self, roots: &Signal) {
        core::mem::swap(&mut self.re, &mut self.im);
        self.transform(roots);
        core::mem::swap(&mut self.re, &mut self.im);
        let scale = 1.0 / points();
        for number in self.re.iter_mut().chain(&mut *self.im) {
            *number *= scale;
        }
    }
}

fn main() {
    say!("fft: {POINTS} points, forward and back");
    let roots = Signal::new(POINTS / 2);
    for (k, (re, im)) in (0_u32..).zip(roots.re.iter_mut().zip(&mut *roots.im)) {
        (*im, *re) = libm::sincos(-2.0 * PI * f64::from(k) / points());
    }
    say!("roots of one: digest {:016x}", roots.digest());

    let mut impulse = Signal::new(POINTS);
    impulse.re[0] = 1.0;
    impulse.transform(&roots);
    let flat = impulse
        .re
        .iter()
        .all(|&re| re.to_bits() == 1.0_f64.to_bits());
    if !flat || impulse.im.iter().any(|&im| im != 0.0) {
        fail!("fft: expected 1 at every frequency of an impulse, saw something else");
    }

    let (input, mut signal) = (Signal::new(POINTS), Signal::new(POINTS));
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        for number in input.re.iter_mut().chain(&mut *input.im) {
            *number = random.signed_unit();
        }
        signal.re.copy_from_slice(input.re);
        signal.im.copy_from_slice(input.im);

        signal.transform(&roots);
        let spectrum = signal.digest();
        let ratio = signal.energy() / input.energy() / points();
        signal.inverse(&roots);

        let mut error = 0.0_f64;
        let seen = signal.re.iter().chain(&*signal.im);
        for (seen, expected) in seen.zip(input.re.iter().chain(&*input.im)) {
            error = error.max((seen - expected).abs());
        }
        say!(
            "round {seed}: spectrum {spectrum:016x} energy ratio {:016x} largest error {error:.3e} {:016x}",
            ratio.to_bits(),
            error.to_bits()
        );
        if (ratio - 1.0).abs() > 1e-13 {
            fail!("fft: expected the energy to be kept, saw it change by {ratio:e}");
        }
        if error > 1e-14 {
            fail!("fft: expected the input back with an error of 1e-14 at most, saw {error:e}");
        }
    }
}
