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
            Said::Case { passed: true, .. } => self.passed += 1,
            Said::Case { passed: false, .. } => self.failed += 1,
            Said::Closing(passed, failed) => {
                self.closing = Some((*passed, *failed));
                self.closings += 1;
            }
            Said::Panic(text) => self.panic = Some(text.clone()),
            Said::Log => {}
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
    use super::{Said, read};

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
