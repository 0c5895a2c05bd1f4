//! Which cases a test program shall run: the arguments that cargo and people give to libtest.

/// The selection that a test program's arguments make.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of libtest")]
pub(super) struct Selection {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    only_ignored: bool,
    /// Only list what there is.
    pub(super) list: bool,
    /// Show what a kernel says in passed cases too.
    pub(super) show_output: bool,
}

/// The flags of libtest that have a value in the next argument.
const WITH_VALUE: [&str; 6] = [
    "--test-threads",
    "--format",
    "--logfile",
    "--color",
    "--shuffle-seed",
    "-Z",
];

impl Selection {
    /// Reads arguments as libtest does; what has no meaning for a kernel is passed over.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut selection = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => selection.list = true,
                "--exact" => selection.exact = true,
                "--ignored" => selection.only_ignored = true,
                "--nocapture" | "--no-capture" | "--show-output" => selection.show_output = true,
                "--skip" => selection.skips.extend(arguments.next()),
                flag if WITH_VALUE.contains(&flag) => drop(arguments.next()),
                flag => {
                    if let Some(skip) = flag.strip_prefix("--skip=") {
                        selection.skips.push(skip.to_owned());
                    } else if !flag.starts_with('-') {
                        selection.filters.push(argument);
                    }
                }
            }
        }
        selection
    }

    /// Tells whether nothing is left out.
    pub(super) fn is_everything(&self) -> bool {
        self.filters.is_empty() && self.skips.is_empty() && !self.only_ignored
    }

    /// Tells whether the case with this full name, `TEST::CASE`, on `machine`, `MODEL/CPUS`, shall count.
    pub(super) fn has(&self, name: &str, machine: &str) -> bool {
        let label = format!("{name} [{machine}]");
        let matches = |filter: &String| {
            if self.exact {
                *filter == name || *filter == label
            } else {
                label.contains(filter)
            }
        };
        !self.only_ignored
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }

    /// Tells whether a case of the test `name` can count; `source` is the test's file, which has its cases' names.
    pub(super) fn can_have(&self, name: &str, machine: &str, source: &str) -> bool {
        let possible = |filter: &String| {
            let case = filter.rsplit("::").next().unwrap_or(filter);
            let case = case.split(" [").next().unwrap_or(case);
            let case = without_policy(case);
            // The name before `::` is the test's, or a part of it.
            let test = filter.rsplit_once("::").map_or("", |(test, _)| test);
            let whole = format!("{name} [{machine}]");
            whole.contains(filter.as_str()) || (name.ends_with(test) && source.contains(case))
        };
        !self.only_ignored && (self.filters.is_empty() || self.filters.iter().any(possible))
    }

    /// Returns the filter that the kernel can apply by itself: one word that is a part of a case's name.
    pub(super) fn for_guest(&self) -> Option<&str> {
        match self.filters.as_slice() {
            [filter] => {
                let case = filter.rsplit("::").next().unwrap_or(filter);
                case.split_whitespace().next()
            }
            _ => None,
        }
    }
}

/// What a kernel puts after a case's name when it repeats the case under a policy.
const POLICIES: [&str; 6] = [
    "lazy",
    "deferred",
    "eager",
    "adaptive",
    "adaptive_write_through",
    "probe",
];

/// The part of a case's name that its test's file has.
fn without_policy(case: &str) -> &str {
    match case.split_once('/') {
        Some((name, policy)) if POLICIES.iter().any(|known| known.starts_with(policy)) => name,
        _ => case,
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;

    fn parse(line: &str) -> Selection {
        Selection::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_of_libtest_are_no_filters() {
        let all =
            parse("--nocapture -q --test-threads 4 --test-threads=4 --format json --color=never");
        assert!(all.is_everything() && all.show_output);
        assert!(parse("--list --format terse").list);
        assert!(!parse("--ignored").has("boot_a::b", "max/1"));
        assert!(parse("--include-ignored").is_everything());
    }

    #[test]
    fn filters_select_by_parts_of_the_full_name() {
        let (name, machine) = ("boot_fork::child_has_registers", "max/4");
        for line in [
            "",
            "fork",
            "child_has",
            "boot_fork::child",
            "max/4",
            "--exact boot_fork::child_has_registers",
            "x fork",
        ] {
            assert!(parse(line).has(name, machine), "{line}");
        }
        for line in [
            "exec",
            "--exact fork",
            "--skip child",
            "--skip=fork",
            "max/1",
        ] {
            assert!(!parse(line).has(name, machine), "{line}");
        }
    }

    #[test]
    fn a_filter_for_other_tests_needs_no_boot() {
        let source = "fn child_has_registers() {}";
        for line in [
            "",
            "fork",
            "child_has",
            "boot_fork::child",
            "max/4",
            "fork::child",
            "boot_fork::child_has_registers/deferred",
            "registers/adaptive_write",
            "/eager",
        ] {
            assert!(parse(line).can_have("boot_fork", "max/4", source), "{line}");
        }
        for line in [
            "conformance",
            "boot_exec::child",
            "child_has/max",
            "max/1",
            "--ignored",
        ] {
            assert!(
                !parse(line).can_have("boot_fork", "max/4", source),
                "{line}"
            );
        }
    }

    #[test]
    fn the_kernel_gets_the_cases_part() {
        assert_eq!(parse("boot_fork::child").for_guest(), Some("child"));
        assert_eq!(parse("child").for_guest(), Some("child"));
        assert_eq!(parse("a::b/eager").for_guest(), Some("b/eager"));
        assert_eq!(parse("a b").for_guest(), None);
        assert_eq!(parse("").for_guest(), None);
    }
}
