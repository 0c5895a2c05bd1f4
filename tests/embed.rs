//! How much a kernel must write to use `pcu9`: the lines between the marks in `qemu/embed/src/main.rs`, and in `smp.rs` beside it
//! for more than one CPU, counted.
//!
//! Counted is every line between `// glue: begin` and `// glue: end` that is not empty and not only a comment. The files are
//! formatted as `rustfmt` does it, which CI checks, so that nothing is gained by long lines.

use std::fs;
use std::path::Path;

/// What a kernel may take: on one CPU, and on more.
const KERNELS: [(&str, usize); 2] = [("main.rs", 100), ("smp.rs", 160)];

/// Where the glue begins and ends; nothing else may look like these marks.
const BEGIN: &str = "// glue: begin";
const END: &str = "// glue: end";

fn source(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("qemu/embed/src");
    let path = folder.join(file);
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
fn the_glue_of_the_smallest_kernels_is_short() {
    for (file, limit) in KERNELS {
        let source = source(file);
        let (glue, _) = split(&source).unwrap_or_else(|error| panic!("{file}: {error}"));
        let n = glue.len();
        println!("{file}: {n} lines of glue, below {limit} allowed");
        assert!(n < limit, "{file}: {n} lines of glue");
        assert!(n > limit / 2, "{file}: {n} lines: some are not marked");
    }
}

/// What makes the trait, the state and the hooks stands between the marks, so that the count counts it.
#[test]
fn all_of_the_glue_is_between_the_marks() {
    let all = [
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
    ];
    let smp = ["init_fpu(", "serve_requests(", "Request<", "REQUESTS"];
    for (file, more) in [("main.rs", &[][..]), ("smp.rs", &smp)] {
        let source = source(file);
        let (glue, others) = split(&source).unwrap_or_else(|error| panic!("{file}: {error}"));
        for text in all.iter().chain(more) {
            let has = |lines: &[&str]| lines.iter().any(|line| line.contains(text));
            assert!(has(&glue), "{file}: `{text}` is nowhere between the marks");
            assert!(
                !has(&others),
                "{file}: `{text}` stands outside of the marks"
            );
        }
    }
}

/// What the guide begins with has nothing of it.
#[test]
fn the_empty_kernel_knows_nothing_of_pcu9() {
    let source = source("empty.rs");
    let (glue, others) = split(&source).unwrap_or_else(|error| panic!("{error}"));
    assert!(glue.is_empty());
    let named = others
        .iter()
        .find(|line| line.contains("pcu9") || line.contains("fpu"));
    assert_eq!(named, None);
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
