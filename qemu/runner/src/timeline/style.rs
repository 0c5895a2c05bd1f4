//! How the picture looks: a style sheet for paper and light screens, and what a dark screen changes of it; and the sign of each
//! count, which is a shape, so that it is told from others on paper without colours.

use super::colour::Colours;

/// What stands for a count: at which row of a CPU's lane, as which shape, and in which colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    pub(super) counter: &'static str,
    pub(super) words: &'static str,
    pub(super) row: Row,
    shape: Shape,
}

/// The rows of signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Traps,
    Loads,
    Saves,
    Wipes,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Tick,
    Up,
    HollowUp,
    Down,
    HollowDown,
    Bars,
    Dot,
    Ring,
    Cross,
    Square,
    HollowSquare,
    Diamond,
    Below,
    Above,
}

const fn sign(counter: &'static str, words: &'static str, row: Row, shape: Shape) -> Sign {
    Sign {
        counter,
        words,
        row,
        shape,
    }
}

/// All signs. A release has none: it is where a stretch of ownership ends.
pub(super) const SIGNS: [Sign; 18] = [
    sign("traps", "trap (#NM)", Row::Traps, Shape::Tick),
    sign("spurious", "trap at an open gate", Row::Traps, Shape::Cross),
    sign(
        "probes",
        "gate closed to see whether it is used",
        Row::Traps,
        Shape::Diamond,
    ),
    sign(
        "xcalls_raced",
        "cross-call that came too late",
        Row::Traps,
        Shape::Ring,
    ),
    sign("inits", "initial state loaded", Row::Loads, Shape::HollowUp),
    sign("restores", "restore", Row::Loads, Shape::Up),
    sign("elided_restores", "restore elided", Row::Loads, Shape::Bars),
    sign(
        "reenables_trap",
        "re-enable by a trap",
        Row::Loads,
        Shape::Dot,
    ),
    sign(
        "reenables_load",
        "re-enable by a load",
        Row::Loads,
        Shape::Diamond,
    ),
    sign(
        "reenables_switch",
        "re-enable at a switch",
        Row::Loads,
        Shape::Ring,
    ),
    sign(
        "preloads",
        "brought in without a trap",
        Row::Loads,
        Shape::Below,
    ),
    sign("loads", "explicit load", Row::Loads, Shape::Above),
    sign("failed", "failed load", Row::Loads, Shape::Cross),
    sign("saves", "save", Row::Saves, Shape::Down),
    sign("elided_saves", "save elided", Row::Saves, Shape::Bars),
    sign("discards", "discard", Row::Saves, Shape::HollowDown),
    sign("wipes", "wipe", Row::Wipes, Shape::Square),
    sign(
        "sections",
        "kernel section",
        Row::Wipes,
        Shape::HollowSquare,
    ),
];

impl Sign {
    /// The shape around a point, as the commands of an SVG path.
    pub(super) fn path(&self, x: f64, y: f64) -> String {
        let shape = match self.shape {
            Shape::Tick => "m0,-4.5v9",
            Shape::Up | Shape::HollowUp => "m0,-3.8l3.6,7h-7.2z",
            Shape::Down | Shape::HollowDown => "m0,3.8l3.6,-7h-7.2z",
            Shape::Bars => "m-3,-1.5h6m-6,3h6",
            Shape::Dot | Shape::Ring => "m-2.8,0a2.8,2.8 0 1,0 5.6,0a2.8,2.8 0 1,0 -5.6,0z",
            Shape::Cross => "m-3,-3l6,6m-6,0l6,-6",
            Shape::Square | Shape::HollowSquare => "m-2.6,-2.6h5.2v5.2h-5.2z",
            Shape::Diamond => "m0,-3.6l3.2,3.6l-3.2,3.6l-3.2,-3.6z",
            Shape::Below => "m-3.6,5.2h7.2",
            Shape::Above => "m-3.6,-5.4h7.2",
        };
        format!("M{x:.2},{y:.2}{shape}")
    }

    /// Its classes in the style sheet.
    pub(super) fn class(&self) -> String {
        let row = match self.row {
            Row::Traps => "t",
            Row::Loads => "l",
            Row::Saves => "s",
            Row::Wipes => "w",
        };
        let filled = match self.shape {
            Shape::Up | Shape::Down | Shape::Dot | Shape::Square | Shape::Diamond => "full",
            _ => "open",
        };
        format!("mark {row} {filled} {}", self.counter)
    }
}

/// Ink, faint ink, page, idle, kernel, and the colours of traps, loads, saves, wipes and cross-calls.
type Theme = [&'static str; 10];

const LIGHT: Theme = [
    "#1b1f24", "#6b7280", "#ffffff", "#eef0f2", "#c9ced6", "#c2410c", "#1d4ed8", "#15803d",
    "#7e22ce", "#be123c",
];
const DARK: Theme = [
    "#e8eaed", "#9aa3af", "#14171c", "#20252c", "#4b5563", "#fb923c", "#93c5fd", "#86efac",
    "#d8b4fe", "#fb7185",
];

fn theme(theme: Theme, colours: &str) -> String {
    let [
        ink,
        faint,
        page,
        idle,
        kernel,
        traps,
        loads,
        saves,
        wipes,
        calls,
    ] = theme;
    let marks = [("t", traps), ("l", loads), ("s", saves), ("w", wipes)].map(|(row, colour)| {
        format!(".{row}{{stroke:{colour}}}.{row}.full{{fill:{colour}}}.{row}.open{{fill:none}}")
    });
    format!(
        ".page{{fill:{page}}}text{{fill:{ink}}}.faint{{fill:{faint}}}.grid{{stroke:{idle}}}.rule{{stroke:{faint}}}\
         .idle{{fill:{idle}}}.kernel{{fill:{kernel}}}.unknown{{fill:{idle};stroke:{faint}}}\
         .stay{{stroke:{ink}}}.run{{stroke:{page}}}.call{{stroke:{calls}}}.tip{{fill:{calls}}}{}{colours}",
        marks.concat()
    )
}

/// The style sheet.
pub(super) fn sheet(colours: &Colours) -> String {
    format!(
        "text{{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:11px}}.title{{font-size:15px;font-weight:600}}\
         .cpu{{font-size:13px;font-weight:600}}.small{{font-size:10px}}.tiny{{font-size:8.5px}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}\
         .grid,.rule{{stroke-width:1}}.run{{stroke-width:.5}}.stay{{stroke-width:.6}}\
         .clean{{fill-opacity:.3;stroke-dasharray:2 1.5}}.mark{{stroke-width:1.3;stroke-linejoin:round}}\
         .call{{stroke-width:1.6;fill:none}}{}.run.thin,.stay.thin{{stroke:none}}@media screen and (prefers-color-scheme:dark){{{}}}",
        theme(LIGHT, &colours.rules([0.62, 0.76])),
        theme(DARK, &colours.rules([0.42, 0.36])),
    )
}
