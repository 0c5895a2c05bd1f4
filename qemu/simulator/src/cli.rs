//! The command line.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use clap::{Args, Parser, Subcommand};
use pcu9_runner::{Step, choose_colours, render_table, say_error, usage_error};
use pcu9_simulator::sweep::Results;
use pcu9_simulator::synthetic::{Habit, Synthetic};
use pcu9_simulator::{Contender, Counts, Leak, Table, Workload, optimum, plot, replay, trace};

const HELP: &str = "\
Machines, for --costs: milan, skylake, risc (traps are cheap), amx (states are large), here (what
`cargo bench --bench fpu` measured of this one, the rest as milan); figures in place of a machine's
own follow its name: --costs here,t=1200,x=100,i=4000,wipe=40.
  t trap  r restore  s save  x the gate opened or closed  i cross-call  wipe; all in cycles

The rows: pcu9's own policies, by the crate's code; models of NetBSD's pcu(9), of the same with
the gate left alone over kernel threads, of Linux' old counter and of its deferred restore, of
seL4's flag, and of a kernel that saves and restores at each switch. `ratio` is the cost to that
of a clairvoyant, who takes no trap, never moves the gate, and loads only what is used.

Exit status: 0 all is well; 1 a promise is not kept, or a file cannot be read or written; 2 a
wrong command line.";

/// Prints a line; the reader of a pipe that has gone is nobody to be told.
macro_rules! say {
    ($($format:tt)*) => {
        if let Err(error) = writeln!(std::io::stdout(), $($format)*) {
            if error.kind() == ErrorKind::BrokenPipe {
                std::process::exit(0);
            }
            panic!("stdout: {error}");
        }
    };
}

/// Replays who ran where, and says what each policy of switching the FPU would have cost.
#[derive(Debug, Parser)]
#[command(name = "cargo simulate", bin_name = "cargo simulate", after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay a trace that `cargo demo --policy probe --trace FILE` recorded
    #[command(after_help = HELP)]
    Trace {
        /// The trace
        file: PathBuf,
        #[command(flatten)]
        shown: Shown,
    },
    /// Replay a made-up workload
    #[command(after_help = HELP)]
    Workload {
        #[command(flatten)]
        made: Made,
        #[command(flatten)]
        shown: Shown,
    },
    /// Replay the whole grid (minutes), write the results, and check what the design promises of `adaptive`
    Sweep {
        /// Where the results go
        #[arg(
            long,
            value_name = "FILE",
            default_value = "target/pcu9/simulator.json"
        )]
        json: PathBuf,
    },
    /// Make charts and the README's table of what `sweep` wrote
    Plot {
        /// What `sweep` wrote
        #[arg(long, value_name = "FILE", default_value = RESULTS)]
        json: PathBuf,
        /// Where the charts go
        #[arg(long, value_name = "FOLDER", default_value = "target/pcu9")]
        charts: PathBuf,
        /// Put the table into this file, in the place of the one that is there; else it is printed
        #[arg(long, value_name = "FILE")]
        readme: Option<PathBuf>,
    },
}

/// Where the results of a sweep lie.
const RESULTS: &str = "target/pcu9/simulator.json";

/// Under which rule, and at which costs.
#[derive(Debug, Args)]
struct Shown {
    /// Whose registers may lie behind the closed gate under pcu9's policies; the models of other kernels do as they do
    #[arg(long, value_enum, default_value_t = Leak::Trusting)]
    leak: Leak,
    /// A machine; may be given several times [default: each of them]
    #[arg(long, value_name = "MACHINE")]
    costs: Vec<Table>,
}

/// A made-up workload.
#[derive(Debug, Args)]
struct Made {
    /// How many CPUs there are
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16000))]
    cpus: u16,
    /// How many LWPs there are
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    lwps: u32,
    /// What an LWP is like: p=P[,run=N], it uses the FPU in this share of its slices, in runs of N; on=N,off=N, in phases. Several:
    /// the LWPs take turns
    #[arg(long, value_name = "HABIT", default_values = ["p=0.5"])]
    habit: Vec<Habit>,
    /// How many slices
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = slices)]
    slices: usize,
    /// With which probability an LWP that is about to run goes to another CPU
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    migrate: f64,
    /// With which probability it runs again after a kernel thread, or idleness
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    stay: f64,
    /// Where the random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn slices(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..) => Ok(n),
        _ => Err("a number from 1 was expected".to_owned()),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(p) if (0.0..1.0).contains(&p) => Ok(p),
        _ => Err("a probability, from 0 to below 1, was expected".to_owned()),
    }
}

pub(crate) fn main() -> ExitCode {
    // `cargo simulate -- ..` as well.
    let arguments: Vec<OsString> = env::args_os()
        .enumerate()
        .filter(|(at, word)| *at != 1 || word != "--")
        .map(|(_, word)| word)
        .collect();
    choose_colours();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.exit_code() == 0 || arguments.len() == 1 => error.exit(),
        Err(error) => {
            let asked = arguments.get(1).and_then(|word| word.to_str());
            let command = match asked {
                Some(word @ ("trace" | "workload" | "sweep" | "plot")) => format!(" {word}"),
                _ => String::new(),
            };
            say_error(usage_error(
                &error.to_string(),
                &format!("cargo simulate{command} --help"),
            ));
            return ExitCode::from(2);
        }
    };
    let result = match cli.command {
        Command::Trace { file, shown } => read(&file).map(|workload| show(&workload, &shown)),
        Command::Workload { made, shown } => {
            show(&made.make(), &shown);
            Ok(())
        }
        Command::Sweep { json } => sweep(&json),
        Command::Plot {
            json,
            charts,
            readme,
        } => draw(&json, &charts, readme.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(error);
            ExitCode::FAILURE
        }
    }
}

fn read(file: &Path) -> Result<Workload, String> {
    let text = fs::read_to_string(file).map_err(|error| {
        let how = "`cargo demo --policy probe --trace FILE` records one";
        format!("{}: {error}; {how}", file.display())
    })?;
    let workload = trace::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    if workload.slices.is_empty() {
        return Err(format!("{}: no slices but idle ones", file.display()));
    }
    Ok(workload)
}

impl Made {
    fn make(self) -> Workload {
        let made = Synthetic {
            n_cpus: self.cpus,
            n_lwps: self.lwps,
            habits: self.habit,
            n_slices: self.slices,
            migration: self.migrate,
            stay: self.stay,
            seed: self.seed,
        };
        made.make()
    }
}

/// Prints a table for each machine.
fn show(workload: &Workload, shown: &Shown) {
    let (entering, uses) = workload.user_slices();
    say!(
        "{} CPUs, {} LWPs, {} slices, {entering} of them enter user mode, {uses} of these use the unit; pcu9's leak rule: {}\n",
        workload.n_cpus,
        workload.domains.len(),
        workload.slices.len(),
        shown.leak.word(),
    );
    let tables = if shown.costs.is_empty() {
        Table::all()
    } else {
        shown.costs.clone()
    };
    let mut fixed: Vec<(Contender, Counts)> = Vec::new();
    for table in &tables {
        let begin = Instant::now();
        let step = Step::quiet(format!(
            "replaying {} slices at {}",
            workload.slices.len(),
            table.name
        ));
        let rows: Vec<(Contender, Counts)> = Contender::ALL
            .into_iter()
            .map(|contender| {
                let known = fixed.iter().find(|(known, _)| *known == contender);
                if let Some(step) = &step {
                    step.note(contender.name());
                }
                let counts = known.map_or_else(
                    || replay(workload, contender, shown.leak, table),
                    |(_, counts)| *counts,
                );
                (contender, counts)
            })
            .collect();
        drop(step);
        say!("{}: {table}", table.name);
        say!("{}", text(workload, table, &rows).trim_end());
        say!("  {:.1} s\n", begin.elapsed().as_secs_f64());
        fixed = rows
            .into_iter()
            .filter(|(contender, _)| !contender.is_adaptive())
            .collect();
    }
}

fn text(workload: &Workload, table: &Table, rows: &[(Contender, Counts)]) -> String {
    let best = optimum(workload);
    let head = [
        "policy",
        "cycles a slice",
        "ratio",
        "restores",
        "saves",
        "traps",
        "gate moves",
        "wipes",
        "cross-calls",
    ];
    let mut cells = vec![head.map(String::from).to_vec()];
    let mut row = |name: &str, counts: &Counts| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "cycles are shown with one digit"
        )]
        let [cost, least, slices] = [
            table.cost(counts),
            table.cost(&best),
            workload.slices.len() as u64,
        ]
        .map(|n| n as f64);
        let ratio = if least > 0.0 {
            format!("{:.2}", cost / least)
        } else {
            "-".to_owned()
        };
        let mut row = vec![name.to_owned(), format!("{:.1}", cost / slices), ratio];
        let Counts {
            traps,
            restores,
            saves,
            toggles,
            cross_calls,
            wipes,
        } = *counts;
        row.extend([restores, saves, traps, toggles, wipes, cross_calls].map(|n| n.to_string()));
        cells.push(row);
    };
    for (contender, counts) in rows {
        row(contender.name(), counts);
    }
    row("clairvoyant", &best);
    render_table(&cells)
}

fn sweep(json: &Path) -> Result<(), String> {
    let to_file = |error: &dyn std::fmt::Display| format!("{}: {error}", json.display());
    // Known now that it can be written, and not after minutes.
    if let Some(folder) = json.parent() {
        fs::create_dir_all(folder).map_err(|error| to_file(&error))?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(json);
    opened.map_err(|error| to_file(&error))?;
    let step = Step::start("replaying the grid");
    let results = Results::compute(1, |done, of| {
        if done % 20 == 0 {
            step.note(format_args!("{done} of {of} cells"));
        }
    });
    step.done();
    let text = serde_json::to_string(&results).map_err(|error| to_file(&error))?;
    fs::write(json, text).map_err(|error| to_file(&error))?;
    say!("{}", render_table(&results.summary()).trim_end());
    say!("{} cells, in {}", results.cells.len(), json.display());
    let violations = results.check();
    for violation in &violations {
        say_error(violation);
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(format!("{} promises are not kept", violations.len()))
    }
}

fn draw(json: &Path, charts: &Path, readme: Option<&Path>) -> Result<(), String> {
    let at = |file: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = fs::read_to_string(json)
        .map_err(|error| at(json, &format!("{error}; `cargo simulate sweep` writes it")))?;
    let results: Results = serde_json::from_str(&text).map_err(|error| {
        at(
            json,
            &format!("{error}; `cargo simulate sweep` writes it anew"),
        )
    })?;
    fs::create_dir_all(charts).map_err(|error| at(charts, &error))?;
    for file in plot::write(&results, charts).map_err(|error| at(charts, &error))? {
        say!("{}", file.display());
    }
    let table = plot::markdown(&results);
    let Some(readme) = readme else {
        say!("\n{table}");
        return Ok(());
    };
    let text = fs::read_to_string(readme).map_err(|error| at(readme, &error))?;
    let (before, rest) = text.split_once(plot::BEGIN).ok_or_else(|| {
        at(
            readme,
            &format!("no line `{}` where the table could go", plot::BEGIN),
        )
    })?;
    let (_, after) = rest.split_once(plot::END).ok_or_else(|| {
        at(
            readme,
            &format!("no line `{}` where the table ends", plot::END),
        )
    })?;
    fs::write(readme, [before, &table, after].concat()).map_err(|error| at(readme, &error))
}
