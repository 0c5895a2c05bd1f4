//! The lines in which a kernel reports its cases.

/// What a line of a test kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// A case ended.
    Case {
        /// Its name.
        name: String,
        /// Whether it passed.
        passed: bool,
    },
    /// The closing line, with its counts.
    Closing(u64, u64),
    /// A panic.
    Panic(String),
    /// Anything else.
    Log,
}

/// The cases that a kernel reported.
#[derive(Debug, Default)]
pub(super) struct Cases {
    /// How many passed.
    pub(super) passed: u64,
    /// How many failed.
    pub(super) failed: u64,
    /// The name of each that failed, and the last line before its own.
    pub(super) failures: Vec<String>,
    last_log: Option<String>,
    /// The last closing line: its counts of passed and failed cases.
    pub(super) closing: Option<(u64, u64)>,
    /// How many closing lines there were.
    pub(super) closings: u32,
    /// What a panic said.
    pub(super) panic: Option<String>,
}

impl Cases {
    /// Counts what a line says, and returns it.
    pub(super) fn take(&mut self, line: &str) -> Said {
        let said = read(line);
        match &said {
            Said::Case { passed: true, .. } => {
                self.passed += 1;
                self.last_log = None;
            }
            Said::Case { name, .. } => {
                self.failed += 1;
                let why = self.last_log.take();
                self.failures
                    .push(why.map_or_else(|| name.clone(), |why| format!("{name} ({why})")));
            }
            Said::Closing(passed, failed) => {
                self.closing = Some((*passed, *failed));
                self.closings += 1;
            }
            Said::Panic(text) => self.panic = Some(text.clone()),
            Said::Log => self.last_log = Some(line.to_owned()),
        }
        said
    }
}

fn read(line: &str) -> Said {
    if let Some(text) = line.strip_prefix("@panic ") {
        return Said::Panic(text.to_owned());
    }
    if let Some((name, result)) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.rsplit_once(" ... "))
    {
        let name = name.to_owned();
        match result {
            "ok" => return Said::Case { name, passed: true },
            "FAILED" => {
                return Said::Case {
                    name,
                    passed: false,
                };
            }
            _ => {}
        }
    }
    closing(line).unwrap_or(Said::Log)
}

fn closing(line: &str) -> Option<Said> {
    let (passed, failed) = line.split_once(" passed, ")?;
    let failed = failed.strip_suffix(" failed")?;
    Some(Said::Closing(passed.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Cases, Said, read};

    #[test]
    fn a_failure_is_told_with_the_line_before_it() {
        let mut cases = Cases::default();
        for line in [
            "passes",
            "test a ... ok",
            "test b ... FAILED",
            "2 is not 3",
            "test c ... FAILED",
        ] {
            cases.take(line);
        }
        assert_eq!((cases.passed, cases.failed), (1, 2));
        assert_eq!(cases.failures, ["b", "c (2 is not 3)"]);
    }

    #[test]
    fn lines_are_told_apart() {
        let case = |name: &str, passed| Said::Case {
            name: name.into(),
            passed,
        };
        assert_eq!(read("test first use ... ok"), case("first use", true));
        assert_eq!(read("test a ... b ... FAILED"), case("a ... b", false));
        assert_eq!(read("12 passed, 3 failed"), Said::Closing(12, 3));
        assert_eq!(read("@panic oh"), Said::Panic("oh".into()));
        for log in [
            "test a ... maybe",
            "test",
            "x passed, 3 failed",
            "1 passed, 3 failed!",
            "",
        ] {
            assert_eq!(read(log), Said::Log, "{log}");
        }
    }
}
