//! At a terminal: each table takes the place of the one before, in the width there is; and whatever ends it, the terminal is as it was.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::{boot, kill, pcustat};

/// A terminal with a program at it.
struct Terminal {
    child: Child,
    /// The program's side, kept open so that the terminal stays.
    side: File,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
    size: (u16, u16),
}

impl Terminal {
    /// Starts a program at a terminal of that many rows and columns.
    fn start(command: &mut Command, (rows, columns): (u16, u16)) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).expect("granted");
        unlockpt(&controller).expect("unlocked");
        let name = ptsname(&controller, Vec::new()).expect("a name");
        let name = name.into_string().expect("text");
        let side = File::options().read(true).write(true).open(name);
        let side = side.expect("the other side");
        tcsetwinsize(&side, winsize(rows, columns)).expect("a size");
        let before = tcgetattr(&side).expect("a state");
        let stream = || side.try_clone().expect("one more");
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.env("TERM", "xterm-256color");
        let child = command.spawn().expect("it runs");
        let written = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&written);
        let mut controller = File::from(controller);
        thread::spawn(move || {
            let mut buffer = [0; 1 << 12];
            while let Ok(n @ 1..) = controller.read(&mut buffer) {
                all.lock()
                    .expect("the bytes")
                    .extend_from_slice(&buffer[..n]);
            }
        });
        Self {
            child,
            side,
            before,
            written,
            size: (rows, columns),
        }
    }

    /// What the program has written.
    fn bytes(&self) -> Vec<u8> {
        self.written.lock().expect("the bytes").clone()
    }

    /// What the terminal shows.
    fn screen(&self) -> vt100::Parser {
        let (rows, columns) = self.size;
        let size = |n| NonZero::new(n).expect("some room");
        let mut parser = vt100::Parser::new(size(rows), size(columns), 1000);
        parser.process(&self.bytes());
        parser
    }

    /// Waits until the screen is as wanted, and returns its lines.
    fn wait_for(&self, what: &str, is_it: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let lines = lines(&self.screen());
            if is_it(&lines) {
                return lines;
            }
            assert!(Instant::now() < deadline, "{what}: {lines:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end; returns the exit status and what is shown. The terminal is as it was.
    fn end(mut self) -> (Option<i32>, vt100::Parser) {
        let status = self.child.wait().expect("it ends");
        // What it wrote last has to come through.
        thread::sleep(Duration::from_millis(200));
        let after = tcgetattr(&self.side).expect("a state");
        let (before, after) = (format!("{:?}", self.before), format!("{after:?}"));
        assert_eq!(before, after, "the terminal's modes");
        let bytes = String::from_utf8(self.bytes()).expect("text");
        // Private modes: another screen, a hidden cursor, a mouse. None was ever set.
        assert!(!bytes.contains("\u{1b}[?"), "{bytes:?}");
        let screen = self.screen();
        assert_eq!(
            screen.screen().cursor_position().1,
            0,
            "the cursor is at the begin of a line"
        );
        assert!(!screen.screen().alternate_screen() && !screen.screen().hide_cursor());
        (status.code(), screen)
    }
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The lines of a screen down to the last that is not empty.
fn lines(parser: &vt100::Parser) -> Vec<String> {
    let screen = parser.screen();
    let columns = screen.size().1;
    let mut lines: Vec<_> = screen
        .rows(0, columns.into())
        .map(|row| row.trim_end().to_owned())
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

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
        command.args(["--interval", "0.1", "--count", "12"]);
        let mut terminal = Terminal::start(&mut command, (24, 100));
        terminal.wait_for("a table", |lines| lines.iter().any(|l| l.starts_with(HEAD)));
        tcsetwinsize(&terminal.side, winsize(24, 50)).expect("a size");
        terminal.size = (24, 50);
        let (status, screen) = terminal.end();
        assert_eq!(status, Some(0));
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
            terminal.wait_for("a table", |lines| lines.iter().any(|l| l.starts_with(HEAD)));
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
                last.starts_with("pcustat: the guest has ended: QEMU "),
                "{shown:#?}"
            );
            assert!(shown[shown.len() - 2].starts_with("70 "), "{shown:#?}");
        });
    }
}

#[test]
fn an_interrupt_ends_it_and_there_is_nothing_to_put_back() {
    boot(1, |guest| {
        let mut command = pcustat(guest);
        command.args(["--interval", "0.1"]);
        let terminal = Terminal::start(&mut command, (24, 100));
        terminal.wait_for("a table", |lines| lines.iter().any(|l| l.starts_with(HEAD)));
        let pid = terminal.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.expect("kill runs").success());
        let (status, screen) = terminal.end();
        assert_eq!(status, None, "the shell is told that a signal ended it");
        assert!(lines(&screen).iter().any(|line| line.starts_with(HEAD)));
    });
}
