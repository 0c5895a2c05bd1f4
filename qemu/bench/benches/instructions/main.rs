//! `cargo bench --bench instructions`: how many instructions pcu9's operations take, counted exactly, beside NetBSD's C.
//!
//! Three units, whose operations are out of line and store one word; calls of the level are empty, the current CPU and LWP are in
//! memory; policy `Lazy`, leak rule `Trusting`, which is plain pcu(9). NetBSD's figures are those of its `subr_pcu.c` 1.28 measured the
//! same way (gcc -O2, assertions off). A figure is what one more turn of the loop takes, its counter included.
//!
//! Writes `target/pcu9/instructions.json`, and fails where an operation takes more than it may: NetBSD's figure, or where that is missed,
//! what it takes today.
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    expect(unused, reason = "nothing is measured elsewhere")
)]

use std::process::ExitCode;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod kernel;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod step;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> ExitCode {
    eprintln!("NOT RUN: x86-64 Linux counts the instructions");
    ExitCode::SUCCESS
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> ExitCode {
    match native::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native {
    use std::fs;
    use std::path::PathBuf;

    use pcu9::pcu::{CpuPcu, LwpPcu};
    use pcu9::x86_64::fpu;
    use pcu9_runner::render_table;
    use serde_json::json;

    use super::kernel::{self, Operation};
    use super::step;

    /// LWPs, for what memory comes to; a tenth of them ever use the FPU.
    const LWPS: usize = 1000;

    /// Why bounds are missed.
    const WHY: &str = "
 Where a bound is missed, pcu9 does what NetBSD does not: it numbers each load, by which a link of memory and
 registers is known to hold; notes whose bits lie in which unit, by which no domain sees another's; counts every
 event; and looks at the policy of LWP and unit. All of it stands in code for any number of units.";

    pub(super) fn run() -> Result<(), String> {
        let mut rows = Vec::new();
        let mut above = Vec::new();
        let mut table = vec![
            ["operation", "pcu9", "NetBSD: bound", "goal"]
                .map(String::from)
                .to_vec(),
        ];
        for operation in kernel::OPERATIONS {
            let Operation {
                name,
                netbsd,
                goal,
                ceiling,
                ..
            } = operation;
            let count = count(&operation)?;
            let cell = |bound: Option<u64>| bound.map_or_else(String::new, |n| verdict(count, n));
            table.push(vec![
                name.to_owned(),
                count.to_string(),
                cell(netbsd),
                cell(goal),
            ]);
            rows.push(json!({
                "operation": name, "pcu9": count, "netbsd": netbsd, "goal": goal, "ceiling": ceiling,
            }));
            if count > ceiling {
                above.push(format!("{name}: {count}, {ceiling} before"));
            }
        }
        println!("Instructions an operation, three units:");
        print!("{}", render_table(&table));
        println!("{WHY}");
        let memory = memory();
        let file =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/pcu9/instructions.json");
        let at_file = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        fs::create_dir_all(file.parent().expect("it has one")).map_err(|error| at_file(&error))?;
        let text = json!({ "operations": rows, "memory": memory }).to_string();
        fs::write(&file, text).map_err(|error| at_file(&error))?;
        if above.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "more instructions than NetBSD's: {}",
                above.join(", ")
            ))
        }
    }

    /// One more turn of the loop: the difference between many turns and twice as many.
    fn count(operation: &Operation) -> Result<u64, String> {
        const TURNS: u64 = 16;
        let [once, twice] = [TURNS, 2 * TURNS].map(|turns| step::count(|| (operation.run)(turns)));
        let (once, twice) = (once?, twice?);
        let difference = twice - once;
        if difference % TURNS != 0 {
            return Err(format!(
                "{}: turns of different lengths, {difference} instructions in {TURNS}",
                operation.name
            ));
        }
        Ok(difference / TURNS)
    }

    fn verdict(count: u64, goal: u64) -> String {
        match count.checked_sub(goal) {
            None | Some(0) => format!("{goal}, met"),
            Some(above) => format!("{goal}, missed by {above}"),
        }
    }

    fn memory() -> serde_json::Value {
        let area = fpu::features().area_bytes();
        let figures = [
            ("an LWP's state, one unit", size_of::<LwpPcu<1>>()),
            ("an LWP's state, three units", size_of::<LwpPcu<3>>()),
            ("a CPU's state, one unit", size_of::<CpuPcu<(), 1>>()),
            ("a CPU's state, three units", size_of::<CpuPcu<(), 3>>()),
            ("an area for the FPU on this machine", area),
            (
                "areas of 1000 LWPs of which 100 ever use the FPU",
                LWPS / 10 * area,
            ),
            ("the same, each with an area", LWPS * area),
        ];
        let mut table = vec![["memory", "bytes"].map(String::from).to_vec()];
        table.extend(figures.map(|(name, bytes)| vec![name.to_owned(), bytes.to_string()]));
        print!("\n{}", render_table(&table));
        figures
            .into_iter()
            .map(|(name, bytes)| (name.to_owned(), json!(bytes)))
            .collect()
    }
}
