//! What the table of CPUs looks like, at each width: as it is, and as rates between two samples.

#![cfg(not(target_os = "none"))]

mod image;

use std::time::Duration;

use image::{CPU_PCU, GROUPS, Image, LWP_BYTES, LWPS, Options};
use pcu9_kpcpu::stat::{Before, Page, Sample};

/// A sample of a machine with three CPUs, and one of two seconds later: CPU 0 has worked, its unit has another owner; CPU 2 is as it
/// was; CPU 3 was not there.
fn two() -> (Sample, Sample) {
    let mut image = Image::new(Options::default());
    image.put_u64s(GROUPS, &[0b101, 0b101]);
    let before = Sample::take(&image.open().expect("it opens")).expect("a sample");
    image.put_u64s(GROUPS, &[0b1101, 0b1101]);
    let unit = CPU_PCU.wrapping_add(image.offset(0)) + 32;
    image.put_u64s(unit, &[LWPS + LWP_BYTES, 6 << 16 | 1, 7, 30 + 4001, 20 + 3]);
    let after = Sample::take(&image.open().expect("it opens")).expect("a sample");
    (before, after)
}

/// The page of that width, with `<` before and `>` behind a line that is bold.
fn shown(width: usize) -> String {
    let (before, after) = two();
    let before = Before {
        sample: &before,
        elapsed: Duration::from_secs(2),
    };
    let mut page = Page::new(width);
    after.add_to(&mut page, Some(before));
    let bold = page.styled().replace("\u{1b}[1m", "<");
    bold.replace("\u{1b}[0m", ">")
}

#[test]
fn rates_at_80_and_at_200_columns() {
    let expected = "\
3 of 3 CPUs started, ids below 64; counts per second, over the last 2.0 s

<CPU  STATE    LWP      UNIT  OWNER    GATE  TRAPS  SAVES>
<0    started  1 lwp 0  fpu   2 lwp 1  open   2000    1.5>
2    started  1 lwp 0  fpu   1 lwp 0  open      0      0
3    started  1 lwp 0  fpu   1 lwp 0  open      -      -
";
    assert_eq!(shown(80), expected);
    assert_eq!(shown(200), expected);
}

#[test]
fn a_narrow_page_keeps_who_owns_what() {
    assert_eq!(
        shown(40),
        "\
3 of 3 CPUs started, ids below 64;
counts per second, over the last 2.0 s

<CPU  LWP      UNIT  OWNER    GATE  TRAPS>
<0    1 lwp 0  fpu   2 lwp 1  open   2000>
2    1 lwp 0  fpu   1 lwp 0  open      0
3    1 lwp 0  fpu   1 lwp 0  open      -

left out for lack of width: STATE, SAVES
"
    );
    assert_eq!(
        shown(20),
        "\
3 of 3 CPUs started,
ids below 64; counts
per second, over the
last 2.0 s

<CPU  UNIT  OWNER>
<0    fpu   2 lwp 1>
2    fpu   1 lwp 0
3    fpu   1 lwp 0

left out for lack of
width: STATE, LWP,
GATE, TRAPS, SAVES
"
    );
}

#[test]
fn rates_for_programs() {
    let (before, after) = two();
    let rates = after.rates(Before {
        sample: &before,
        elapsed: Duration::from_secs(2),
    });
    let text = serde_json::to_string(&rates).expect("JSON");
    let expected = r#"{"0":{"fpu":{"saves":1.5,"traps":2000.5}},"2":{"fpu":{"saves":0.0,"traps":0.0}},"3":{}}"#;
    assert_eq!(text, expected);
}
