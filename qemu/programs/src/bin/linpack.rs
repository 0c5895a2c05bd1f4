//! LINPACK's benchmark: a dense system of 100 equations by LU decomposition with partial pivoting, in double precision.
//!
//! The matrix comes from the benchmark's own generator and the right-hand side is such that every unknown is 1. This
//! program does the same operations in the same order as Jack Dongarra's Fortran and its translation to C by Bonnie Toy, and
//! so ends with the numbers that they print on machines with IEEE 754 arithmetic: normalised residual 1.67005097, residual
//! 7.41628980e-14.

#![no_std]
#![no_main]

use pcu9_programs::numbers::Digest;
use pcu9_programs::syscalls::{sched_yield, zeroed};
use pcu9_programs::{fail, program, say};

program!(main);

const ORDER: u32 = 100;
const N: usize = ORDER as usize;
const ROUNDS: u32 = 24;

/// A column of the matrix; the matrix is stored by columns, as Fortran does.
fn column(a: &[f64], j: usize) -> &[f64] {
    &a[j * N..][..N]
}

/// MATGEN: fills the matrix from a 16-bit congruential generator, and `b` with the sum of each row. Gives the largest
/// absolute value.
fn matgen(a: &mut [f64], b: &mut [f64]) -> f64 {
    let mut seed = 1325_i32;
    let mut largest = 0.0_f64;
    for number in &mut *a {
        seed = 3125 * seed % 65536;
        *number = f64::from(seed - 32768) / 16384.0;
        largest = largest.max(number.abs());
    }
    b.fill(0.0);
    for j in 0..N {
        daxpy(1.0, column(a, j), b);
    }
    largest
}

/// y += factor * x
fn daxpy(factor: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// IDAMAX: where the largest absolute value is.
fn idamax(x: &[f64]) -> usize {
    let mut largest = 0;
    for (i, number) in x.iter().enumerate() {
        if number.abs() > x[largest].abs() {
            largest = i;
        }
    }
    largest
}

/// DGEFA: replaces the matrix by its factors L (with its signs changed) and U, and notes the pivots.
fn dgefa(a: &mut [f64], pivots: &mut [usize; N]) {
    for k in 0..N {
        let (left, right) = a.split_at_mut((k + 1) * N);
        let pivot_column = &mut left[k * N..];
        let pivot = k + idamax(&pivot_column[k..]);
        pivots[k] = pivot;
        if pivot_column[pivot] == 0.0 {
            fail!("linpack: expected a regular matrix, saw a zero in column {k}");
        }
        pivot_column.swap(pivot, k);
        let factor = -1.0 / pivot_column[k];
        for number in &mut pivot_column[k + 1..] {
            *number *= factor;
        }
        for other in right.chunks_exact_mut(N) {
            other.swap(pivot, k);
            daxpy(other[k], &pivot_column[k + 1..], &mut other[k + 1..]);
        }
        if k % 25 == 0 {
            sched_yield();
        }
    }
}

/// DGESL: solves with the factors; the right-hand side becomes the solution.
fn dgesl(a: &[f64], pivots: &[usize; N], b: &mut [f64]) {
    for k in 0..N - 1 {
        b.swap(pivots[k], k);
        daxpy(b[k], &column(a, k)[k + 1..], &mut b[k + 1..]);
    }
    for k in (0..N).rev() {
        b[k] /= column(a, k)[k];
        daxpy(-b[k], &column(a, k)[..k], &mut b[..k]);
    }
}

fn largest_absolute(x: &[f64]) -> f64 {
    x[idamax(x)].abs()
}

fn main() {
    say!("linpack: {N} equations, LU with partial pivoting, {ROUNDS} times");
    let (a, x, residual) = (zeroed(N * N), zeroed(N), zeroed(N));
    let mut pivots = [0; N];
    let mut first = None;
    for round in 0..ROUNDS {
        matgen(a, x);
        dgefa(a, &mut pivots);
        dgesl(a, &pivots, x);

        let mut digest = Digest::default();
        for number in a.iter().chain(&*x) {
            digest.add(number.to_bits());
        }
        // The same equations each time: a bit that differs was lost by whoever shares the FPU.
        let expected = *first.get_or_insert(digest.0);
        if digest.0 != expected {
            fail!(
                "linpack: expected digest {expected:016x} in round {round}, saw {:016x}",
                digest.0
            );
        }
    }

    let norm_a = matgen(a, residual);
    for number in &mut *residual {
        *number = -*number;
    }
    for (j, &unknown) in x.iter().enumerate() {
        daxpy(unknown, column(a, j), residual);
    }
    let error = largest_absolute(residual);
    let normalised = error / (f64::from(ORDER) * norm_a * largest_absolute(x) * f64::EPSILON);
    for (name, number) in [
        ("normalised residual", normalised),
        ("residual", error),
        ("x[0] - 1", x[0] - 1.0),
        ("x[99] - 1", x[N - 1] - 1.0),
    ] {
        say!("{name:<19} {number:.8e} {:016x}", number.to_bits());
    }
    say!("factors and solution: digest {:016x}", first.unwrap_or(0));
    if (normalised - 1.670_050_97).abs() > 0.5e-8 {
        fail!("linpack: expected the published residual 1.67005097, saw {normalised:.8}");
    }
}
