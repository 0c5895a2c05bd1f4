//! The Mandelbrot set: a picture, and its area by counting points. Double-precision `+ - *` and compares.
//!
//! The area is 1.50659 (Thorsten Förstemann, 2012, by counting points); a grid of this size comes within two percent.
//! The set is symmetrical about the real axis, and with exact arithmetic so are the counts, to the last point.

#![no_std]
#![no_main]

use pcu9_programs::numbers::Digest;
use pcu9_programs::syscalls::sched_yield;
use pcu9_programs::{fail, program, say};

program!(main);

const MAX_ITERATIONS: u32 = 200;
const AREA: f64 = 1.506_59;
/// The grid has `COLUMNS` times `ROWS` points in the rectangle from -2.25 - 1.25i to 0.75 + 1.25i.
const COLUMNS: u32 = 300;
const ROWS: u32 = 250;

/// Counts the steps z = z * z + c, from zero, until |z| > 2.
fn iterations(re: f64, im: f64) -> u32 {
    let (mut x, mut y) = (0.0, 0.0);
    for n in 0..MAX_ITERATIONS {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return n;
        }
        y = 2.0 * x * y + im;
        x = xx - yy + re;
    }
    MAX_ITERATIONS
}

/// Prints the set in letters: each doubling of the steps is a shade darker.
fn picture() {
    const SHADES: &[u8; 10] = b" .:-=+*%#@";
    for row in -11_i32..=11 {
        let mut line = [b' '; 72];
        for (column, letter) in (0_u32..).zip(&mut line) {
            let re = f64::from(column) / 24.0 - 2.25;
            let n = iterations(re, f64::from(row) / 9.0);
            *letter = SHADES[n.checked_ilog2().map_or(0, |log| log as usize + 1)];
        }
        let text = core::str::from_utf8(&line).unwrap_or("?");
        say!("|{text}|");
    }
}

fn main() {
    say!("mandelbrot: the set, and its area by {COLUMNS} x {ROWS} points");
    picture();

    let mut digest = Digest::default();
    let (mut inside, mut above, mut below) = (0_u32, 0_u32, 0_u32);
    for row in 0..ROWS {
        // Odd multiples of a half, so that no row is on the axis and each has its mirror image, with the same bits.
        let im = (f64::from(2 * row + 1) - f64::from(ROWS)) / f64::from(ROWS) * 1.25;
        let mut in_row = 0;
        for column in 0..COLUMNS {
            let re = f64::from(2 * column + 1) / f64::from(2 * COLUMNS) * 3.0 - 2.25;
            let n = iterations(re, im);
            digest.add(u64::from(n));
            in_row += u32::from(n == MAX_ITERATIONS);
        }
        inside += in_row;
        if im > 0.0 {
            above += in_row;
        } else {
            below += in_row;
        }
        if row % 8 == 0 {
            sched_yield();
        }
    }

    let area = f64::from(inside) * (3.0 * 2.5) / f64::from(COLUMNS * ROWS);
    say!("inside {inside} digest {:016x}", digest.0);
    say!("area {area:.6} {:016x}", area.to_bits());
    if above != below {
        fail!("mandelbrot: expected as many points below the axis as above, {above}, saw {below}");
    }
    if (area - AREA).abs() > 0.02 * AREA {
        fail!("mandelbrot: expected an area within two percent of {AREA}, saw {area:.6}");
    }
}
