//! NetBSD's recorded behaviour: every scenario of `tests/vectors`, or of the directory in `PCU9_VECTORS`, run on the fake
//! kernel with the crate's own code. The format is described in `tests/vectors/README.md`.
//!
//! Leak rule: Trusting, plain pcu(9).

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fmt, fs};

use pcu9::pcu::{CoreDump, Validity};
use pcu9_fake::{TRUSTING, UNITS, World, unit};

/// One item of a vector file, and where it stands.
struct Line<'a> {
    file: &'a str,
    number: usize,
    text: &'a str,
}

impl Line<'_> {
    fn error(&self, what: impl fmt::Display) -> String {
        format!("{}:{}: {what}: `{}`", self.file, self.number, self.text)
    }

    /// The value of `key=value` among the words of the line.
    fn value(&self, key: &str) -> Result<&str, String> {
        self.text
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .ok_or_else(|| self.error(format_args!("no `{key}=`")))
    }

    fn parse<T: FromStr>(&self, key: &str) -> Result<T, String> {
        self.value(key)?
            .parse()
            .map_err(|_| self.error(format_args!("`{key}` has no such value")))
    }

    /// An index below `limit`.
    fn index(&self, key: &str, limit: usize) -> Result<usize, String> {
        let index: usize = self.parse(key)?;
        if index < limit {
            Ok(index)
        } else {
            Err(self.error(format_args!("`{key}` is not below {limit}")))
        }
    }
}

struct Scenario {
    world: Box<World>,
    n_units: usize,
}

impl Scenario {
    fn new(header: &[Line<'_>]) -> Result<Self, String> {
        let number = |index: usize, key: &str, limit: usize| {
            let line: &Line<'_> = &header[index];
            let count = line
                .text
                .strip_prefix(key)
                .and_then(|rest| rest.trim().parse().ok());
            count
                .filter(|count| (1..=limit).contains(count))
                .ok_or_else(|| line.error(format_args!("expected `{key} COUNT`, at most {limit}")))
        };
        if header[0].text != "pcu-conformance 1" {
            return Err(header[0].error("expected `pcu-conformance 1`"));
        }
        let n_units = number(1, "units", UNITS)?;
        let (n_cpus, n_lwps) = (number(2, "cpus", 64)?, number(3, "lwps", 1024)?);
        let world = World::new(n_cpus, n_lwps, n_units, TRUSTING);
        for lwp in 0..n_lwps {
            world.lwp(lwp).domain.set(1);
        }
        Ok(Self { world, n_units })
    }

    /// Runs one operation and gives what it answered.
    fn run(&self, line: &Line<'_>) -> Result<Option<bool>, String> {
        let world = &*self.world;
        let cpu = || line.index("cpu", world.cpus.len());
        let lwp = || line.index("lwp", world.n_lwps());
        let unit = || {
            Ok::<_, String>(unit(
                u8::try_from(line.index("unit", self.n_units)?).unwrap(),
            ))
        };
        let failed = |error: &dyn fmt::Display| line.error(error);
        match line.text.split_whitespace().next().unwrap_or_default() {
            "switch" => {
                let next = if line.value("lwp")? == "-" {
                    None
                } else {
                    Some(lwp()?)
                };
                if next.is_some_and(|next| world.cpu_of(next).is_some()) {
                    return Err(line.error("the LWP runs already"));
                }
                world.switch(cpu()?, next);
            }
            "load" => {
                let mut current = self.current(line, cpu()?)?;
                world
                    .pcu
                    .load(&mut current, unit()?)
                    .map_err(|error| failed(&error))?;
            }
            "save" => self.holding(line, cpu()?, lwp()?, unit()?, Operation::Save)?,
            "discard" => {
                let validity = if line.parse("valid")? {
                    Validity::Valid
                } else {
                    Validity::Invalid
                };
                self.holding(line, cpu()?, lwp()?, unit()?, Operation::Discard(validity))?;
            }
            "save_all" => {
                let dump = if line.parse("core")? {
                    CoreDump::Yes
                } else {
                    CoreDump::No
                };
                let mut current = self.current(line, cpu()?)?;
                world
                    .pcu
                    .save_all(&mut current, dump)
                    .map_err(|error| failed(&error))?;
            }
            "discard_all" => {
                let mut current = self.current(line, cpu()?)?;
                world
                    .pcu
                    .discard_all(&mut current)
                    .map_err(|error| failed(&error))?;
            }
            "save_all_on_cpu" => {
                world.here.set(cpu()?);
                world.pcu.save_all_on_cpu(&world.raise());
            }
            "valid_p" => return Ok(Some(world.lwp(lwp()?).pcu.valid_p(unit()?))),
            _ => return Err(line.error("no such operation")),
        }
        Ok(None)
    }

    /// The token of the LWP that runs on `cpu`, if it is the one that the line names, if it names one.
    fn current(
        &self,
        line: &Line<'_>,
        cpu: usize,
    ) -> Result<pcu9::kernel::Current<'_, World, UNITS>, String> {
        let named = line
            .value("lwp")
            .ok()
            .map(|_| line.index("lwp", self.world.n_lwps()))
            .transpose()?;
        match self.world.current_on(cpu) {
            Some(lwp) if named.is_none_or(|named| named == lwp) => Ok(self.world.current(cpu)),
            _ => Err(line.error("that LWP is not the current one of the CPU")),
        }
    }

    /// Does `operation` on `cpu` to its current LWP, or to one that runs nowhere.
    fn holding(
        &self,
        line: &Line<'_>,
        cpu: usize,
        lwp: usize,
        unit: pcu9::pcu::UnitId,
        operation: Operation,
    ) -> Result<(), String> {
        let world = &*self.world;
        let result = match world.cpu_of(lwp) {
            Some(other) if other == cpu => operation.run(world, &mut world.current(cpu), unit),
            None => {
                world.here.set(cpu);
                operation.run(world, &mut world.stopped(lwp), unit)
            }
            Some(_) => return Err(line.error("the LWP runs on another CPU")),
        };
        result.map_err(|error| line.error(error))
    }

    /// The two observations after an operation.
    fn observe(&self) -> [String; 2] {
        let world = &*self.world;
        let units = || (0..self.n_units).map(|index| unit(u8::try_from(index).unwrap()));
        let owners = world.cpus.iter().map(|cpu| {
            let owner = |unit| {
                cpu.pcu
                    .owner(unit)
                    .map_or("-".to_owned(), |owner| number(world, owner).to_string())
            };
            units().map(owner).collect::<Vec<_>>().join(",")
        });
        let valid = (0..world.n_lwps()).map(|lwp| {
            let mask: u32 = units()
                .filter(|unit| world.lwp(lwp).pcu.valid_p(*unit))
                .map(|unit| 1 << unit.index())
                .sum();
            mask.to_string()
        });
        [
            format!("= owners {}", owners.collect::<Vec<_>>().join(" ")),
            format!("= valid {}", valid.collect::<Vec<_>>().join(" ")),
        ]
    }
}

fn number(world: &World, owner: std::ptr::NonNull<pcu9_fake::Lwp>) -> usize {
    (0..world.n_lwps())
        .find(|lwp| world.pointer(*lwp) == owner)
        .expect("the owner is one of the LWPs")
}

#[derive(Clone, Copy)]
enum Operation {
    Save,
    Discard(Validity),
}

impl Operation {
    fn run(
        self,
        world: &World,
        lwp: &mut impl pcu9::kernel::Held<World, UNITS>,
        unit: pcu9::pcu::UnitId,
    ) -> Result<(), pcu9::kernel::NoAnswer> {
        match self {
            Self::Save => world.pcu.save(lwp, unit),
            Self::Discard(validity) => world.pcu.discard(lwp, unit, validity),
        }
    }
}

/// Runs one file; gives the number of its operations.
fn run_text(file: &str, text: &str) -> Result<usize, String> {
    let lines: Vec<_> = text
        .lines()
        .enumerate()
        .map(|(index, text)| Line {
            file,
            number: index + 1,
            text: text.trim_end(),
        })
        .collect();
    if lines.len() < 4 {
        return Err(format!("{file}:{}: the header has four lines", lines.len()));
    }
    let (header, lines) = lines.split_at(4);
    let scenario = Scenario::new(header)?;
    let mut operations = 0;
    let mut rest = lines;
    while let Some((operation, after)) = rest.split_first() {
        if operation.text.starts_with(['>', '=']) {
            return Err(operation.error("expected an operation"));
        }
        let end = after
            .iter()
            .take_while(|line| line.text.starts_with(['>', '=']))
            .count();
        let (expected, next) = after.split_at(end);
        compare(&scenario, operation, expected)?;
        operations += 1;
        rest = next;
    }
    if operations == 0 {
        return Err(format!("{file}: no operation"));
    }
    Ok(operations)
}

fn compare(scenario: &Scenario, operation: &Line<'_>, expected: &[Line<'_>]) -> Result<(), String> {
    scenario.world.log.borrow_mut().clear();
    let answer = scenario.run(operation)?;
    let mut seen: Vec<_> = scenario
        .world
        .log
        .borrow()
        .iter()
        .map(|line| format!("> {line}"))
        .collect();
    seen.extend(answer.map(|answer| format!("= returns {answer}")));
    seen.extend(scenario.observe());
    for index in 0..seen.len().max(expected.len()) {
        let line = expected.get(index).map(|line| line.text);
        let seen = seen.get(index).map(String::as_str);
        if line != seen {
            let at = expected.get(index).or(expected.last()).unwrap_or(operation);
            return Err(format!(
                "{}:{}: after `{}`\n  expected `{}`\n  seen     `{}`",
                at.file,
                at.number,
                operation.text,
                line.unwrap_or("nothing more"),
                seen.unwrap_or("nothing more")
            ));
        }
    }
    Ok(())
}

fn run_directory(directory: &Path) -> Result<(usize, usize), String> {
    let entries =
        fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no *.txt file", directory.display()));
    }
    let mut operations = 0;
    let mut errors = Vec::new();
    for file in &files {
        let name = file.display().to_string();
        let result = fs::read_to_string(file)
            .map_err(|error| format!("{name}: {error}"))
            .and_then(|text| run_text(&name, &text));
        match result {
            Ok(count) => operations += count,
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok((files.len(), operations))
    } else {
        Err(errors.join("\n"))
    }
}

#[test]
fn the_recorded_vectors_hold() {
    let directory =
        env::var_os("PCU9_VECTORS").map_or_else(|| PathBuf::from("tests/vectors"), PathBuf::from);
    match run_directory(&directory) {
        Ok((files, operations)) => println!("{files} scenarios, {operations} operations"),
        Err(error) => panic!("\n{error}"),
    }
}

const SMALL: &str =
    "pcu-conformance 1\nunits 1\ncpus 1\nlwps 1\nswitch cpu=0 lwp=0\n= owners -\n= valid 0\n";

#[test]
fn a_mismatch_names_file_line_expected_and_seen() {
    let text = SMALL.replace("valid 0", "valid 1");
    let error = run_text("small.txt", &text).unwrap_err();
    let expected =
        "small.txt:7: after `switch cpu=0 lwp=0`\n  expected `= valid 1`\n  seen     `= valid 0`";
    assert_eq!(error, expected);
    let error = run_text("small.txt", &SMALL.replace("= valid 0\n", "")).unwrap_err();
    assert!(
        error.contains("expected `nothing more`\n  seen     `= valid 0`"),
        "{error}"
    );
    let error = run_text(
        "small.txt",
        &SMALL.replace("= owners", "> save unit=0 lwp=0 cpu=0\n= owners"),
    )
    .unwrap_err();
    assert!(
        error.contains("small.txt:6: ") && error.contains("expected `> save unit=0"),
        "{error}"
    );
}

#[test]
fn a_malformed_file_names_its_line() {
    for (from, to, expected) in [
        (
            "pcu-conformance 1",
            "pcu-conformance 2",
            "x:1: expected `pcu-conformance 1`",
        ),
        (
            "units 1",
            "units 9",
            "x:2: expected `units COUNT`, at most 3",
        ),
        ("cpus 1", "cpus", "x:3: expected `cpus COUNT`"),
        (
            "switch cpu=0 lwp=0",
            "swich cpu=0",
            "x:5: no such operation",
        ),
        ("switch cpu=0 lwp=0", "switch cpu=0", "x:5: no `lwp=`"),
        (
            "switch cpu=0 lwp=0",
            "switch cpu=1 lwp=0",
            "x:5: `cpu` is not below 1",
        ),
        (
            "switch cpu=0 lwp=0",
            "load cpu=0 unit=0",
            "x:5: that LWP is not the current one",
        ),
        (
            "switch cpu=0 lwp=0",
            "discard cpu=0 unit=0 lwp=0 valid=2",
            "x:5: `valid` has no such value",
        ),
        ("switch cpu=0 lwp=0\n", "", "x:5: expected an operation"),
    ] {
        let error = run_text("x", &SMALL.replace(from, to)).unwrap_err();
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
    assert!(run_text("x", "").unwrap_err().contains("four lines"));
    assert_eq!(run_text("x", SMALL), Ok(1));
}

#[test]
fn a_directory_without_vectors_fails() {
    let directory = env::temp_dir().join(format!("pcu9-no-vectors-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let error = run_directory(&directory).unwrap_err();
    assert!(error.contains("no *.txt file"), "{error}");
    fs::remove_dir(&directory).unwrap();
    assert!(run_directory(&directory).is_err());
}
