//! What is left of a demo to look at: `timeline.svg` and `trace.json`.

use std::path::PathBuf;
use std::{env, fs};

use super::run::Run;
use crate::cli::DemoArgs;
use crate::error::{During, Error, Result};
use crate::place;
use crate::progress::print;
use crate::timeline::{Timeline, Window, picture, trace};

/// Above so many events a picture is slow to open and hard to read.
const MANY: usize = 20_000;

/// Draws the runs that recorded something, and says where.
pub(super) fn write(args: &DemoArgs, runs: &[Run]) -> Result<()> {
    let recorded = runs.iter().filter(|run| !run.session.timelines.is_empty());
    let timelines: Vec<Timeline<'_>> = recorded.map(|run| of_run(args, run)).collect();
    if timelines.is_empty() {
        return Ok(());
    }
    let dir = dir(args);
    let [svg, json] = ["timeline.svg", "trace.json"].map(|name| dir.join(name));
    let put = |file: &PathBuf, text: String| fs::write(file, text).during(file.display());
    let words = ["cargo".to_owned()].into_iter().chain(env::args().skip(1));
    let command = words.collect::<Vec<_>>().join(" ");
    put(&svg, picture(&timelines, args.window, &command))?;
    put(&json, format!("{}\n", trace(&timelines)))?;
    let events: usize = timelines.iter().map(Timeline::n_events).sum();
    print(format_args!(
        "  the picture of who ran and who owned the FPU is {}",
        svg.display()
    ));
    print(format_args!(
        "  {events} events are in {}, for https://ui.perfetto.dev",
        json.display()
    ));
    let lost: u64 = timelines.iter().map(Timeline::lost).sum();
    match args.window {
        Window::Auto if lost > 0 => print(format_args!(
            "  They are the first ones of each CPU; --window FROM..TO records others, between two times in milliseconds"
        )),
        Window::Between { .. } if lost > 0 => print(format_args!(
            "  {lost} EVENTS OF THE WINDOW ARE MISSING: the kernel had no room for them; a shorter --window has all"
        )),
        Window::Between { .. } if events > MANY => {
            print(format_args!(
                "  A picture of so many is hard to read: a shorter --window shows each"
            ));
        }
        _ => {}
    }
    print("");
    Ok(())
}

/// Where the files go.
fn dir(args: &DemoArgs) -> PathBuf {
    let default = || place::target("pcu9");
    args.timeline.clone().unwrap_or_else(default)
}

/// Makes the directory, so that it is known before anything runs that files can be put there.
pub(super) fn make_dir(args: &DemoArgs) -> Result<()> {
    if args.window == Window::None {
        return Ok(());
    }
    let dir = dir(args);
    let made = fs::create_dir_all(&dir).and_then(|()| tempfile::tempfile_in(&dir));
    let failed = |error| Error::unusable(format!("--timeline {}: {error}", dir.display()));
    made.map(|_| ()).map_err(failed)
}

fn of_run<'a>(args: &DemoArgs, run: &'a Run) -> Timeline<'a> {
    let title = format!(
        "policy {}, {} CPUs ({}), leak rule {}",
        run.policy.word(),
        args.cpus,
        args.machine(),
        args.leak.word()
    );
    Timeline::new((run.policy.word(), title), &run.session.timelines, |job| {
        run.session.program(job)
    })
}
