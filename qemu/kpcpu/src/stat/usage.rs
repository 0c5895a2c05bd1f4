//! What the project's commands say of a wrong command line: one line, and where to read on.

/// Makes one line of what clap says in several; `help` is the command that helps.
pub fn usage_error(said: &str, help: &str) -> String {
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let is_told = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more");
    let words = said.lines().take_while(is_told).map(str::trim);
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        line += match (line.is_empty(), word.starts_with("tip: ")) {
            (true, _) => "",
            (false, true) => "; ",
            (false, false) => " ",
        };
        line += word.trim_start_matches("tip: ");
    }
    format!("{line}; see `{help}`")
}

#[cfg(test)]
mod tests {
    use super::usage_error;

    #[test]
    fn what_is_wrong_a_tip_and_where_to_read_on_stand_in_one_line() {
        let said = "error: unexpected argument '--cpu1' found\n\n  tip: a similar argument exists: '--cpu'\n\n\
            Usage: x demo\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_error(said, "x --help"),
            "unexpected argument '--cpu1' found; a similar argument exists: '--cpu'; see `x --help`"
        );
        let said = "error: the following required arguments were not provided:\n  <FILE>\n\nUsage: x <FILE>\n";
        let line = "the following required arguments were not provided: <FILE>; see `x --help`";
        assert_eq!(usage_error(said, "x --help"), line);
    }
}
