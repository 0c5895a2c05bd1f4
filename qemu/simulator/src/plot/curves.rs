//! What a slice costs, over how often LWPs use the unit, under each policy; and where one policy becomes cheaper than another.

use std::error::Error;

use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::element::{Circle, PathElement, Text};
use plotters::series::{DashedLineSeries, LineSeries};
use plotters::style::{BLACK, Color, RGBColor, ShapeStyle, WHITE};

use super::{Area, plain_cells};
use crate::sweep::Results;

/// LWPs on the CPU of the chart.
const LWPS: u32 = 16;

/// The policies, in the order of the legend; their colours, and how wide their lines are: those that lie on each other show side by
/// side.
const POLICIES: [(&str, RGBColor, u32); 7] = [
    ("lazy", RGBColor(0xd5, 0x5e, 0x00), 2),
    ("deferred", RGBColor(0x00, 0x72, 0xb2), 9),
    ("eager", RGBColor(0x9a, 0xd4, 0xf5), 6),
    ("seL4 14, flag", RGBColor(0x00, 0x9e, 0x73), 2),
    ("Linux 4.4, counter", RGBColor(0xcc, 0x79, 0xa7), 2),
    ("adaptive", RGBColor(0x00, 0x00, 0x00), 2),
    ("optimum", RGBColor(0x99, 0x99, 0x99), 2),
];

/// The points of a policy, by use probability.
fn points(results: &Results, policy: &str, machine: &str) -> Vec<(f64, f64)> {
    let cells =
        plain_cells(results).filter(|cell| cell.lwps == LWPS && (cell.run - 1.0).abs() < 0.5);
    let mut points: Vec<(f64, f64)> = cells
        .filter_map(|cell| Some((cell.p, results.cost(cell, policy, machine)?)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Where the first policy, cheaper before, becomes dearer than the second one: between two points the costs are taken for straight.
pub fn crossover(first: &[(f64, f64)], second: &[(f64, f64)]) -> Option<(f64, f64)> {
    let both: Vec<_> = first.iter().zip(second).collect();
    both.windows(2).find_map(|pair| {
        let [(a, b), (c, d)] = pair else { return None };
        let (before, after) = (a.1 - b.1, c.1 - d.1);
        let part = before / (before - after);
        let between = |from: f64, to: f64| from + (to - from) * part;
        (before < 0.0 && after >= 0.0).then(|| (between(a.0, c.0), between(a.1, c.1)))
    })
}

pub(super) fn draw(
    area: &Area<'_>,
    results: &Results,
    machine: &str,
) -> Result<(), Box<dyn Error>> {
    let table = results.table(machine).ok_or("no such machine")?;
    let curves: Vec<_> = POLICIES
        .iter()
        .map(|&(policy, colour, width)| {
            let style = ShapeStyle::from(&colour).stroke_width(width);
            (policy, style, points(results, policy, machine))
        })
        .collect();
    let of = |wanted: &str| {
        curves
            .iter()
            .find(|(policy, ..)| *policy == wanted)
            .map(|(.., points)| points)
    };
    let deferred = of("deferred")
        .filter(|points| points.len() > 1)
        .ok_or("no cells to show")?;
    // Lazy leaves the picture where it is far above the others.
    let top = 1.6 * deferred.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{machine}: {table}"), ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..1.0, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(format!(
            "share of slices that use the unit, {LWPS} LWPs on a CPU"
        ))
        .y_desc("cycles a slice")
        .y_label_formatter(&|cycles| format!("{cycles:.0}"))
        .draw()?;
    for (policy, style, points) in &curves {
        let style = *style;
        let inside = clipped(points, top);
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style);
        let name = if *policy == "optimum" {
            "clairvoyant"
        } else {
            policy
        };
        if *policy == "adaptive" || *policy == "optimum" {
            chart
                .draw_series(DashedLineSeries::new(inside, 6, 4, style))?
                .label(name)
                .legend(key);
        } else {
            chart
                .draw_series(LineSeries::new(inside, style))?
                .label(name)
                .legend(key);
        }
    }
    if let Some((p, cost)) = of("lazy").and_then(|lazy| crossover(lazy, deferred)) {
        chart.draw_series([Circle::new((p, cost), 5, BLACK.stroke_width(2))])?;
        let label = format!("{:.0} %: lazy = deferred", p * 100.0);
        let place = (p + 0.02, cost - top * 0.06);
        chart.draw_series([Text::new(label, place, ("sans-serif", 14))])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}

/// The points up to where the line leaves the picture at its top.
fn clipped(points: &[(f64, f64)], top: f64) -> Vec<(f64, f64)> {
    let mut inside: Vec<(f64, f64)> = Vec::new();
    for &(p, cost) in points {
        if cost <= top {
            inside.push((p, cost));
            continue;
        }
        if let Some(&(last_p, last)) = inside.last() {
            inside.push((last_p + (p - last_p) * (top - last) / (cost - last), top));
        }
        break;
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::{clipped, crossover};

    #[test]
    fn a_crossover_is_between_the_points_where_the_order_changes() {
        let rising = [(0.0, 0.0), (0.5, 50.0), (1.0, 150.0)];
        let flat = [(0.0, 100.0), (0.5, 100.0), (1.0, 100.0)];
        assert_eq!(crossover(&rising, &flat), Some((0.75, 100.0)));
        assert_eq!(crossover(&flat, &rising), None);
        assert_eq!(crossover(&flat, &flat), None);
    }

    #[test]
    fn a_line_ends_where_it_leaves_the_picture() {
        let rising = [(0.0, 0.0), (0.5, 50.0), (1.0, 150.0)];
        assert_eq!(
            clipped(&rising, 100.0),
            [(0.0, 0.0), (0.5, 50.0), (0.75, 100.0)]
        );
        assert_eq!(clipped(&rising, 200.0), rising);
        assert!(clipped(&[(0.0, 9.0)], 5.0).is_empty());
    }
}
