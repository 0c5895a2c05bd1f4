//! A terminal for a program to be tested: what it writes, what that shows, and whether the terminal is as it was when the program ended.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// What the test itself writes when the program has ended.
const END: &[u8] = b"\x04the end\x04";

/// A terminal with a program at it.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    /// The program's side, kept open so that the terminal stays.
    pub(crate) side: File,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
    pub(crate) size: (u16, u16),
}

impl Terminal {
    /// Starts a program at a terminal of that many rows and columns.
    pub(crate) fn start(command: &mut Command, (rows, columns): (u16, u16)) -> Self {
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
    pub(crate) fn bytes(&self) -> Vec<u8> {
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

    /// Waits until all that was written has come through: a terminal keeps the order.
    fn drain(&mut self) {
        self.side.write_all(END).expect("a terminal");
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let mut written = self.written.lock().expect("the bytes");
            if written.ends_with(END) {
                let n = written.len() - END.len();
                written.truncate(n);
                return;
            }
            drop(written);
            assert!(Instant::now() < deadline, "the terminal is stuck");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the screen is as wanted, and returns its lines.
    pub(crate) fn wait_for_minutes(
        &self,
        minutes: u64,
        what: &str,
        is_it: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_mins(minutes);
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
    pub(crate) fn end(mut self) -> (Option<i32>, vt100::Parser) {
        let status = self.child.wait().expect("it ends");
        self.drain();
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

pub(crate) fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The lines of a screen down to the last that is not empty.
pub(crate) fn lines(parser: &vt100::Parser) -> Vec<String> {
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
