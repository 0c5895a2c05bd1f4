//! At a terminal: each table takes the place of the one before, in the width there is; and whatever ends it, the terminal is as it was.

use std::process::Command;

use rustix::termios::tcsetwinsize;

use super::pty::{Terminal, lines, winsize};
use super::{boot, kill, pcustat};

const HEAD: &str = "CPU  STATE    LWP";

#[test]
fn the_table_at_80_and_at_200_columns() {
    boot(4, |guest| {
        for columns in [80, 200] {
            let mut command = pcustat(guest);
            command.args(["--interval", "0.2", "--count", "4"]);
            let terminal = Terminal::start(&mut command, (24, columns));
            let (status, screen) = terminal.end();
            assert_eq!(status, Some(0));
            let shown = lines(&screen);
            // One table, however many were shown: the last in the place of those before.
            assert_eq!(shown.len(), 8, "{shown:#?}");
            assert!(
                shown[0].starts_with(
                    "4 of 5 CPUs started, ids below 128; counts per second, over the last "
                ) || shown[0].starts_with(
                    "5 of 5 CPUs started, ids below 128; counts per second, over the last "
                ),
                "{shown:#?}"
            );
            assert_eq!(shown[1], "");
            assert!(
                shown[2].starts_with(HEAD) && shown[2].contains("TRAPS"),
                "{shown:#?}"
            );
            for (line, cpu) in shown[3..].iter().zip([0, 1, 2, 3, 70]) {
                assert!(line.starts_with(&format!("{cpu:<5}")), "{shown:#?}");
                assert!(line.contains(" fpu "), "{shown:#?}");
                assert_eq!(line.chars().count(), shown[2].chars().count(), "{shown:#?}");
            }
            // The head is bold, and nothing has a colour of its own: it shows on light and dark.
            let cell = |row, column| screen.screen().cell(row, column).expect("a cell").clone();
            assert!(cell(2, 0).bold() && !cell(0, 0).bold());
            for row in 0..8 {
                for column in 0..columns {
                    let cell = cell(row, column);
                    assert_eq!(
                        (cell.fgcolor(), cell.bgcolor()),
                        (vt100::Color::Default, vt100::Color::Default)
                    );
                }
            }
        }
    });
}

#[test]
fn a_narrow_terminal_leaves_columns_out_and_a_low_one_rows() {
    boot(4, |guest| {
        let mut command = pcustat(guest);
        command.args(["--interval", "0.1", "--count", "3"]);
        let (status, screen) = Terminal::start(&mut command, (24, 40)).end();
        assert_eq!(status, Some(0));
        let shown = lines(&screen);
        assert!(
            shown
                .iter()
                .any(|line| line.starts_with("CPU  ") && line.contains("OWNER")),
            "{shown:#?}"
        );
        assert!(
            !shown.iter().any(|line| line.contains("STATE  ")),
            "{shown:#?}"
        );
        let all = shown.join(" ");
        assert!(
            all.contains("left out for lack of width: STATE"),
            "{shown:#?}"
        );

        let mut command = pcustat(guest);
        command.args(["--interval", "0.1", "--count", "3"]);
        let (status, screen) = Terminal::start(&mut command, (6, 100)).end();
        assert_eq!(status, Some(0));
        let shown = lines(&screen);
        assert_eq!(shown.len(), 5, "{shown:#?}");
        assert_eq!(shown[4], ".. 4 more lines");
    });
}

#[test]
fn a_terminal_that_changes_its_width_is_drawn_anew() {
    boot(1, |guest| {
        let mut command = pcustat(guest);
        command.args(["--interval", "0.1"]);
        let mut terminal = Terminal::start(&mut command, (24, 100));
        terminal.wait_for_minutes(1, "a table", |lines| {
            lines.iter().any(|l| l.starts_with(HEAD))
        });
        tcsetwinsize(&terminal.side, winsize(24, 50)).expect("a size");
        terminal.size = (24, 50);
        terminal.wait_for_minutes(1, "a narrow table", |lines| {
            lines.join(" ").contains("left out for lack of width")
        });
        guest
            .connect()
            .expect("QEMU answers")
            .quit()
            .expect("it ends");
        let (status, screen) = terminal.end();
        assert_eq!(status, Some(1));
        let shown = lines(&screen);
        let heads = shown.iter().filter(|line| line.starts_with("CPU  "));
        assert_eq!(heads.count(), 1, "{shown:#?}");
    });
}

#[test]
fn a_guest_that_ends_or_crashes_leaves_the_last_table_and_one_line() {
    for crashes in [false, true] {
        boot(2, |guest| {
            let mut command = pcustat(guest);
            command.args(["--interval", "0.1"]);
            let terminal = Terminal::start(&mut command, (24, 100));
            terminal.wait_for_minutes(1, "a table", |lines| {
                lines.iter().any(|l| l.starts_with(HEAD))
            });
            if crashes {
                kill(guest);
            } else {
                guest
                    .connect()
                    .expect("QEMU answers")
                    .quit()
                    .expect("it ends");
            }
            let (status, screen) = terminal.end();
            assert_eq!(status, Some(1));
            let shown = lines(&screen);
            let last = shown.last().expect("a line");
            assert!(
                last.starts_with("error: the guest has ended: QEMU "),
                "{shown:#?}"
            );
            assert!(shown[shown.len() - 2].starts_with("70 "), "{shown:#?}");
        });
    }
}

#[test]
fn an_interrupt_ends_it_and_there_is_nothing_to_put_back() {
    boot(1, |guest| {
        let asked = pcustat(guest);
        // Whoever runs the tests in the background has the signal ignored, which is inherited.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(asked.get_program());
        command.args(asked.get_args()).args(["--interval", "0.1"]);
        let terminal = Terminal::start(&mut command, (24, 100));
        terminal.wait_for_minutes(1, "a table", |lines| {
            lines.iter().any(|l| l.starts_with(HEAD))
        });
        let pid = terminal.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.expect("kill runs").success());
        let (status, screen) = terminal.end();
        assert_eq!(
            status,
            None,
            "the shell is told that a signal ended it: {:#?}",
            lines(&screen)
        );
        assert!(lines(&screen).iter().any(|line| line.starts_with(HEAD)));
    });
}
