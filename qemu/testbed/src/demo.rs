//! The demo: every program of the archive, several copies of each, on all CPUs, and the counters at the end.
//!
//! The lines that begin with `@` are what the runner reads.

use pcu9::pcu::LeakRule;
use tar_no_std::TarArchiveRef;

use crate::boot::info::{self, option_number};
use crate::exit::{Outcome, exit};
use crate::lwp::ANYWHERE;
use crate::testing::{self, TimerSection};
use crate::{glue, line, process, report, timeline, trace, watch};

/// Runs the demo and ends the run.
///
/// # Panics
///
/// Without an archive of programs.
pub fn main() {
    let archive = info::get()
        .module_bytes()
        .expect("no archive of programs was given (-initrd)");
    let archive = TarArchiveRef::new(archive).expect("the archive of programs is not a tar file");
    let copies = option_number("copies").unwrap_or(2);
    glue::use_command_line();
    report::boot();
    match option_number("trace") {
        None | Some(0) => {}
        Some(1) => trace::start(),
        Some(other) => panic!("trace={other} on the command line: neither 0 nor 1"),
    }
    let is_watched = glue::PCU.leak_rule() == LeakRule::DomainAware;
    if is_watched {
        watch::start();
    }

    let has_sections = match option_number("sections") {
        None | Some(0) => false,
        Some(1) => true,
        Some(other) => panic!("sections={other} on the command line: neither 0 nor 1"),
    };
    if has_sections {
        testing::use_fpu_in_timer(TimerSection::WithSlot);
    }

    timeline::start();
    let mut job = 0;
    for entry in archive.entries() {
        let name = entry.filename();
        let name = name.as_str().unwrap_or("?");
        for copy in 0..copies {
            start(entry.data(), name, job, copy);
            job += 1;
        }
    }
    process::wait_for_all();
    let (looks, leaks) = watch::stop();
    if is_watched {
        line!("{looks} looks into the registers under a process: {leaks} saw another domain's");
    }
    let are_good = !has_sections || are_sections_good();
    timeline::print();
    trace::print();
    report::counters();
    if leaks > 0 || !are_good {
        line!("@end failed");
        exit(Outcome::Failure);
    }
    line!("@end ok");
    exit(Outcome::Success)
}

/// Ends the kernel's own use of the FPU, and says what came of it.
fn are_sections_good() -> bool {
    testing::use_fpu_in_timer(TimerSection::Off);
    let sections = testing::timer_sections();
    line!(
        "{} kernel sections in the timer's handler: {} found registers that were not initial, {} lost their own, {} left something",
        sections.entered,
        sections.not_initial,
        sections.lost,
        sections.left_behind
    );
    sections.entered > 0 && sections.not_initial + sections.lost + sections.left_behind == 0
}

fn start(file: &'static [u8], name: &str, job: u64, copy: u64) {
    if process::elf::needs(file, "avx") && !report::has_avx() {
        line!("@skip {job} {name} {copy} avx");
        return;
    }
    line!("@job {job} {name} {copy}");
    if let Err(error) = process::start(file, &[name], job, ANYWHERE) {
        line!("@error {job} {error}");
    }
}
