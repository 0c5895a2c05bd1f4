//! How much a kernel must write to use `pcu9`: the lines between the marks in `qemu/embed/src/main.rs`, counted.
//!
//! Counted is every line between `// glue: begin` and `// glue: end` that is not empty and not only a comment. The file is
//! formatted as `rustfmt` does it, which CI checks, so that nothing is gained by long lines.

use std::fs;
use std::path::Path;

/// What a kernel on one CPU may take.
const LIMIT: usize = 100;

/// Where the glue begins and ends; nothing else may look like these marks.
const BEGIN: &str = "// glue: begin";
const END: &str = "// glue: end";

fn source() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("qemu/embed/src/main.rs");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Splits a source into its lines of glue and the others, both without empty lines and comments.
fn split(source: &str) -> Result<(Vec<&str>, Vec<&str>), String> {
    let (mut glue, mut others) = (Vec::new(), Vec::new());
    let mut begun = None;
    for (number, line) in (1..).zip(source.lines().map(str::trim)) {
        match (line, begun) {
            (BEGIN, None) => begun = Some(number),
            (END, Some(_)) => begun = None,
            (BEGIN | END, _) => return Err(format!("line {number}: `{line}` has no partner")),
            _ if line.is_empty() || line.starts_with("//") => {
                if !line.starts_with("//!") && line.contains("glue:") {
                    return Err(format!("line {number}: `{line}` is no mark"));
                }
            }
            (_, Some(_)) => glue.push(line),
            (_, None) => others.push(line),
        }
    }
    match begun {
        Some(number) => Err(format!("line {number}: the glue does not end")),
        None => Ok((glue, others)),
    }
}

#[test]
fn the_glue_of_the_smallest_kernel_is_short() {
    let source = source();
    let (glue, _) = split(&source).unwrap_or_else(|error| panic!("{error}"));
    println!("{} lines of glue, below {LIMIT} allowed", glue.len());
    assert!(glue.len() < LIMIT, "{} lines of glue", glue.len());
    assert!(glue.len() > 50, "{} lines: some are not marked", glue.len());
}

/// What makes the trait, the state and the hooks stands between the marks, so that the count counts it.
#[test]
fn all_of_the_glue_is_between_the_marks() {
    let source = source();
    let (glue, others) = split(&source).unwrap_or_else(|error| panic!("{error}"));
    for text in [
        "use pcu9",
        "impl Kernel<",
        "impl FpuArea",
        "Pcu::new(",
        "CpuPcu::new(",
        "LwpPcu::new(",
        "fpu::init_cpu(",
        "fpu::prepare(",
        ".switch_out(",
        ".switchpoint(",
        ".trap(",
        ".exit(",
        "fixup(",
    ] {
        let has = |lines: &[&str]| lines.iter().any(|line| line.contains(text));
        assert!(has(&glue), "`{text}` is nowhere between the marks");
        assert!(!has(&others), "`{text}` stands outside of the marks");
    }
}

#[test]
fn comments_and_empty_lines_are_not_counted_and_marks_pair_up() {
    let good =
        "one\n  // glue: begin\n\n// a comment\n  two\n/// docs\nthree\n // glue: end\nfour\n";
    assert_eq!(split(good), Ok((vec!["two", "three"], vec!["one", "four"])));
    for bad in [
        "// glue: begin\none",
        "// glue: end",
        "// glue: begin\n// glue: begin\n// glue: end",
        "// glue: begin\n// glue: end\n// glue: end",
        "// glue: start",
    ] {
        assert!(split(bad).is_err(), "{bad}");
    }
}
