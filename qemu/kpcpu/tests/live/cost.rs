//! What looking costs the host.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::{boot, pcustat};

/// The clock ticks of user and system time that a process has had: `utime` and `stime` of proc(5), which are what getrusage(2) has.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name, in parentheses, may have anything in it.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<_> = rest.split_whitespace().collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    number(11) + number(12)
}

#[test]
fn ten_looks_a_second_take_less_than_a_twentieth_of_a_processor() {
    boot(4, |guest| {
        let mut command = pcustat(guest);
        command.args(["--interval", "0.1"]).stdout(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        // What the start takes is not what looking costs.
        thread::sleep(Duration::from_secs(1));
        let (begun, before) = (Instant::now(), ticks(child.id()));
        thread::sleep(Duration::from_secs(8));
        let used = ticks(child.id()) - before;
        let seconds = begun.elapsed().as_secs_f64();
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        // Linux counts in hundredths of a second, USER_HZ.
        let used = Duration::from_millis(10 * used).as_secs_f64();
        assert!(
            used / seconds < 0.05,
            "{used:.2} s of {seconds:.2} s, for a program that is built for debugging"
        );
    });
}
