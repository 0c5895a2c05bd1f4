//! The results of a sweep as charts and as the README's table.

mod curves;
mod map;
mod table;

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::style::WHITE;

use crate::Leak;
use crate::sweep::{Cell, Kind, Results};

pub use curves::crossover;
pub use table::{BEGIN, END, markdown};

/// What the backend draws on.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the charts into a folder, and says which files.
///
/// # Errors
///
/// When one cannot be written, or the results lack what it shows.
pub fn write(results: &Results, folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let costs = folder.join("cost-over-use.svg");
    panels(&costs, results, |area, machine| {
        curves::draw(area, results, machine)
    })?;
    let map = folder.join("adaptive-to-best-fixed.svg");
    panels(&map, results, |area, machine| {
        map::draw(area, results, machine)
    })?;
    Ok(vec![costs, map])
}

/// A file with a chart for each machine.
fn panels(
    file: &Path,
    results: &Results,
    draw: impl Fn(&Area<'_>, &str) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (1240, 920)).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((2, 2));
    for (area, machine) in areas.iter().zip(results.machines.keys()) {
        draw(area, machine)?;
    }
    root.present()?;
    Ok(())
}

/// The cells with one habit for all LWPs, without migration or stays, under the rule `Trusting`.
fn plain_cells(results: &Results) -> impl Iterator<Item = &Cell> {
    results.cells.iter().filter(|cell| {
        cell.kind == Kind::Uses
            && cell.leak == Leak::Trusting.word()
            && cell.migration <= 0.0
            && cell.stay <= 0.0
    })
}
