//! The sun and the four gas giants, as in the Benchmarks Game's n-body program: double-precision `+ - * /` and square roots.
//!
//! The game publishes the energies that this program checks: -0.169075164 at the start, -0.169087605 after 1000 steps.

#![no_std]
#![no_main]

use core::f64::consts::PI;

use pcu9_programs::numbers::sqrt;
use pcu9_programs::syscalls::sched_yield;
use pcu9_programs::{fail, program, say};

program!(main);

const SOLAR_MASS: f64 = 4.0 * PI * PI;
const DAYS_PER_YEAR: f64 = 365.24;
const TIME_STEP: f64 = 0.01;
const STEPS: u32 = 100_000;

struct Body {
    position: [f64; 3],
    velocity: [f64; 3],
    mass: f64,
}

/// A planet from its astronomical numbers: position in astronomical units, velocity in units a day, mass in solar masses.
const fn planet(position: [f64; 3], [vx, vy, vz]: [f64; 3], mass: f64) -> Body {
    Body {
        position,
        velocity: [vx * DAYS_PER_YEAR, vy * DAYS_PER_YEAR, vz * DAYS_PER_YEAR],
        mass: mass * SOLAR_MASS,
    }
}

const fn solar_system() -> [Body; 5] {
    [
        planet([0.0; 3], [0.0; 3], 1.0),
        // Jupiter, Saturn, Uranus, Neptune.
        planet(
            [
                4.841_431_442_464_72e0,
                -1.160_320_044_027_428_4e0,
                -1.036_220_444_711_231_1e-1,
            ],
            [
                1.660_076_642_744_037e-3,
                7.699_011_184_197_404e-3,
                -6.904_600_169_720_63e-5,
            ],
            9.547_919_384_243_266e-4,
        ),
        planet(
            [
                8.343_366_718_244_58e0,
                4.124_798_564_124_305e0,
                -4.035_234_171_143_214e-1,
            ],
            [
                -2.767_425_107_268_624e-3,
                4.998_528_012_349_172e-3,
                2.304_172_975_737_639_3e-5,
            ],
            2.858_859_806_661_308e-4,
        ),
        planet(
            [
                1.289_436_956_213_913_1e1,
                -1.511_115_140_169_863_1e1,
                -2.233_075_788_926_557_3e-1,
            ],
            [
                2.964_601_375_647_616e-3,
                2.378_471_739_594_809_5e-3,
                -2.965_895_685_402_375_6e-5,
            ],
            4.366_244_043_351_563e-5,
        ),
        planet(
            [
                1.537_969_711_485_091_6e1,
                -2.591_931_460_998_796_4e1,
                1.792_587_729_503_711_8e-1,
            ],
            [
                2.680_677_724_903_893_2e-3,
                1.628_241_700_382_423e-3,
                -9.515_922_545_197_159e-5,
            ],
            5.151_389_020_466_114_5e-5,
        ),
    ]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn difference(a: &Body, b: &Body) -> [f64; 3] {
    core::array::from_fn(|axis| a.position[axis] - b.position[axis])
}

/// Calls `f` once for each pair of bodies.
fn each_pair(bodies: &mut [Body], mut f: impl FnMut(&mut Body, &mut Body)) {
    let mut rest = bodies;
    while let Some((first, others)) = rest.split_first_mut() {
        for other in &mut *others {
            f(first, other);
        }
        rest = others;
    }
}

/// Gives the sun the velocity by which the whole system's momentum is zero.
fn offset_momentum(bodies: &mut [Body]) {
    for axis in 0..3 {
        let mut momentum = 0.0;
        for body in &*bodies {
            momentum += body.velocity[axis] * body.mass;
        }
        bodies[0].velocity[axis] = -momentum / SOLAR_MASS;
    }
}

fn advance(bodies: &mut [Body]) {
    each_pair(bodies, |a, b| {
        let d = difference(a, b);
        let distance_squared = dot(d, d);
        let magnitude = TIME_STEP / (distance_squared * sqrt(distance_squared));
        for (axis, &along) in d.iter().enumerate() {
            a.velocity[axis] -= along * b.mass * magnitude;
            b.velocity[axis] += along * a.mass * magnitude;
        }
    });
    for body in bodies {
        for axis in 0..3 {
            body.position[axis] += TIME_STEP * body.velocity[axis];
        }
    }
}

fn energy(bodies: &mut [Body]) -> f64 {
    let mut energy = 0.0;
    for body in &*bodies {
        energy += 0.5 * body.mass * dot(body.velocity, body.velocity);
    }
    each_pair(bodies, |a, b| {
        let d = difference(a, b);
        energy -= a.mass * b.mass / sqrt(dot(d, d));
    });
    energy
}

fn main() {
    let mut bodies = solar_system();
    offset_momentum(&mut bodies);
    say!("nbody: energy of the sun and four planets");
    for step in 0..=STEPS {
        let published = match step {
            0 => Some(-0.169_075_164),
            1000 => Some(-0.169_087_605),
            _ => None,
        };
        if published.is_some() || step % 10_000 == 0 {
            let seen = energy(&mut bodies);
            say!("step {step:>6} {seen:.9} {:016x}", seen.to_bits());
            // Nine decimals are published, so half of the last one is the most that can be off.
            if let Some(expected) = published
                && (seen - expected).abs() > 0.5e-9
            {
                fail!("nbody: expected energy {expected:.9} at step {step}, saw {seen:.12}");
            }
        }
        if step % 1000 == 0 {
            sched_yield();
        }
        advance(&mut bodies);
    }
}
