//! What `Adaptive` costs to the best fixed policy, over how often, in what runs, and by how many LWPs the unit is used.

use std::error::Error;

use plotters::chart::ChartBuilder;
use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoTextStyle, RGBColor, WHITE};

use super::{Area, plain_cells};
use crate::sweep::Results;

const LWPS: [u32; 4] = [2, 4, 16, 64];
const RUNS: [f64; 3] = [1.0, 8.0, 64.0];

pub(super) fn draw(
    area: &Area<'_>,
    results: &Results,
    machine: &str,
) -> Result<(), Box<dyn Error>> {
    let mut shares: Vec<f64> = plain_cells(results).map(|cell| cell.p).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    // One row for each number of LWPs and each length of a run.
    let rows: Vec<(u32, f64)> = LWPS
        .iter()
        .flat_map(|&lwps| RUNS.map(|run| (lwps, run)))
        .collect();
    let places = |n: usize| (0..u32::try_from(n).unwrap_or(0)).map(f64::from);
    let [width, height] =
        [shares.len(), rows.len()].map(|n| places(n).next_back().map_or(0.0, |last| last + 1.0));
    let caption = format!("{machine}: adaptive to the best of lazy, deferred, eager");
    // Below and to the left is place for what the rows and columns are.
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 17))
        .margin(12)
        .build_cartesian_2d(-2.6..width, -1.8..height)?;
    let text = |size, horizontal| {
        let style = ("sans-serif", size).into_text_style(area);
        style.pos(Pos::new(horizontal, VPos::Center))
    };
    for (x, &p) in places(shares.len()).zip(&shares) {
        for (y, &(lwps, run)) in places(rows.len()).zip(&rows) {
            let cell = plain_cells(results).find(|cell| {
                let [p, run] = [cell.p - p, cell.run - run].map(f64::abs);
                p < 1e-9 && run < 1e-9 && cell.lwps == lwps
            });
            let Some(regret) = cell.and_then(|cell| results.regret(cell, machine)) else {
                continue;
            };
            let square = Rectangle::new([(x, y), (x + 1.0, y + 1.0)], colour(regret).filled());
            chart.draw_series([square])?;
            // Light text where the colour is dark.
            let is_light = (0.55..1.35).contains(&regret);
            let style = text(12, HPos::Center).color(if is_light { &BLACK } else { &WHITE });
            let place = (x + 0.5, y + 0.5);
            chart.draw_series([Text::new(format!("{regret:.2}"), place, style)])?;
        }
        let style = text(13, HPos::Center).color(&BLACK);
        chart.draw_series([Text::new(p.to_string(), (x + 0.5, -0.5), style)])?;
    }
    for (y, (lwps, run)) in places(rows.len()).zip(&rows) {
        let style = text(13, HPos::Right).color(&BLACK);
        let name = format!("{lwps} LWPs, runs of {run}");
        chart.draw_series([Text::new(name, (-0.15, y + 0.5), style)])?;
    }
    let style = text(13, HPos::Center).color(&BLACK);
    let name = "share of slices that use the unit";
    chart.draw_series([Text::new(name, (width / 2.0, -1.3), style)])?;
    Ok(())
}

/// Blue where `Adaptive` is cheaper than any fixed policy, white where it is the same, red where it is dearer.
fn colour(regret: f64) -> RGBColor {
    let mix = |part: f64, to: [u8; 3]| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 255"
        )]
        let channel = |to: u8| (255.0 + (f64::from(to) - 255.0) * part.clamp(0.0, 1.0)) as u8;
        RGBColor(channel(to[0]), channel(to[1]), channel(to[2]))
    };
    if regret < 1.0 {
        mix(1.0 - regret, [0x00, 0x5a, 0x9e])
    } else {
        mix((regret - 1.0) * 2.0, [0xb0, 0x30, 0x10])
    }
}
