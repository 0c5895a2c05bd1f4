//! `timeline.svg`: for each run a panel, in it for each CPU a lane.
//!
//! A lane has six rows: traps; who runs; whose state is in the FPU's registers (newer than memory, or, pale, equal to it);
//! loads; saves; wipes. A cross-call is an arrow from the asking CPU's traps to the registers that it asks for. Each count is one
//! element, whose class is the counter's name: `switches` are the runs with the class `begun`, `xcalls` the arrows, and the
//! stretches of ownership with the classes `gained` and `given-up` are what the counters' identities say of them.

mod legend;
mod page;

use svg::node::element::{Path, Title};

use self::page::{LEFT, Page, RIGHT, bar, line, text, width};
use super::lane::{Call, Lane, Run, Stay};
use super::style::{Row, SIGNS, Sign};
use super::window::{self, Window};
use super::{Stretch, Timeline, ms};
use crate::protocol::{Lwp, Registers, Who, counted};

/// The middles of a lane's rows of signs, and the tops of its bars with their heights.
#[derive(Debug, Clone, Copy)]
struct Layout {
    traps: f64,
    runs: (f64, f64),
    fpu: (f64, f64),
    loads: f64,
    saves: f64,
    wipes: f64,
    height: f64,
    /// The class of the rows' names.
    words: &'static str,
}

/// For one run.
const ROOMY: Layout = Layout {
    traps: 5.0,
    runs: (11.0, 22.0),
    fpu: (36.0, 16.0),
    loads: 61.0,
    saves: 74.0,
    wipes: 86.0,
    height: 104.0,
    words: "small faint end",
};
/// For several, one above the other.
const DENSE: Layout = Layout {
    traps: 4.0,
    runs: (9.5, 14.0),
    fpu: (25.0, 10.0),
    loads: 41.5,
    saves: 52.0,
    wipes: 61.5,
    height: 73.0,
    words: "tiny faint end",
};

/// Draws the runs one above the other: the part of each that was asked for, or one in which there is much to be seen. The picture
/// says by which command it was made, to those who read its text.
pub(crate) fn picture(timelines: &[Timeline<'_>], asked: Window, command: &str) -> String {
    let window = match asked {
        Window::Auto | Window::None => window::choose(timelines),
        Window::Between { .. } => {
            let recorded = || timelines.iter().map(Timeline::recorded);
            let from = recorded().map(|(from, _)| from).min().unwrap_or(0);
            let until = recorded().map(|(_, until)| until).max().unwrap_or(0);
            (from, until.max(from) + 1)
        }
    };
    let layout = if timelines.len() > 1 { DENSE } else { ROOMY };
    let mut page = Page::new();
    page.head(timelines, window, asked);
    for timeline in timelines {
        let class = format!("panel {}", timeline.policy);
        page.group(&class, |page| page.panel(timeline, window, layout));
    }
    page.legend();
    page.finish(command)
}

/// Where a time is on the page.
#[derive(Clone, Copy)]
struct Scale(Stretch);

impl Scale {
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a run are far below 2^52"
    )]
    fn x(self, at: u64) -> f64 {
        let Self((from, to)) = self;
        let part = at.saturating_sub(from) as f64 / (to - from).max(1) as f64;
        LEFT + part.min(1.0) * (RIGHT - LEFT)
    }
}

impl Page {
    /// What the times mean, and what is missing.
    fn head(&mut self, timelines: &[Timeline<'_>], window: Stretch, asked: Window) {
        let (from, to) = (ms(window.0), ms(window.1));
        let says = format!(
            "{from:.3} to {to:.3} ms after the first program began, by the time stamp counter of an emulated machine: the order is \
             what happened, the durations are the emulator's"
        );
        self.add(text("faint", (14.0, self.y), says));
        // What was not asked for is not missing.
        let lost: u64 = match asked {
            Window::Auto | Window::None => 0,
            Window::Between { .. } => timelines.iter().map(Timeline::lost).sum(),
        };
        if lost > 0 {
            self.y += 16.0;
            let says = format!(
                "{lost} events of the window {asked} are missing, where a lane is grey or after its end: the kernel had no room for them"
            );
            self.add(text("cpu", (14.0, self.y), says));
        }
        self.y += 22.0;
    }

    fn panel(&mut self, timeline: &Timeline<'_>, window: Stretch, layout: Layout) {
        let lanes = timeline.lanes(window);
        self.add(text("title", (14.0, self.y), timeline.title.clone()));
        self.y += 8.0;
        let top = self.y;
        let height = layout.height * f64::from(u32::try_from(lanes.len()).unwrap_or(0));
        self.axis(window, (top, top + height));
        let scale = Scale(window);
        for (lane, nth) in lanes.iter().zip(0_u32..) {
            let y = top + 6.0 + f64::from(nth) * layout.height;
            let class = format!("lane cpu{}", lane.cpu);
            self.group(&class, |page| page.lane(timeline, lane, scale, (layout, y)));
        }
        for (lane, nth) in lanes.iter().zip(0_u32..) {
            let y = top + 6.0 + f64::from(nth) * layout.height;
            let class = format!("calls cpu{}", lane.cpu);
            self.group(&class, |page| {
                page.calls(lane, &lanes, scale, (layout, y, top + 6.0));
            });
        }
        for name in counted() {
            let count: usize = lanes.iter().map(|lane| lane.count(name)).sum();
            *self.counts.entry(name).or_default() += count;
        }
        self.y = top + height + 34.0;
    }

    /// Lines at round times, with the times below.
    fn axis(&mut self, window: Stretch, (top, bottom): (f64, f64)) {
        let (from, to) = (ms(window.0), ms(window.1));
        let step = round_step((to - from) / 9.0);
        let digits = if step < 0.01 {
            3
        } else if step < 0.1 {
            2
        } else {
            usize::from(step < 1.0)
        };
        let mut at = (from / step).ceil() * step;
        while at <= to {
            let x = LEFT + (at - from) / (to - from).max(f64::MIN_POSITIVE) * (RIGHT - LEFT);
            self.add(line("grid", [x, top, x, bottom]));
            let unit = if at + step > to { " ms" } else { "" };
            self.add(text(
                "small middle",
                (x, bottom + 12.0),
                format!("{at:.digits$}{unit}"),
            ));
            at += step;
        }
    }

    fn lane(
        &mut self,
        timeline: &Timeline<'_>,
        lane: &Lane,
        scale: Scale,
        (layout, y): (Layout, f64),
    ) {
        if y > 0.0 && lane.cpu > 0 {
            self.add(line("grid", [14.0, y - 6.0, RIGHT, y - 6.0]));
        }
        self.add(text(
            "cpu",
            (14.0, y + layout.runs.0 + layout.runs.1 / 2.0 + 4.5),
            format!("CPU {}", lane.cpu),
        ));
        let rows = [
            (layout.traps, "traps"),
            (layout.runs.0 + layout.runs.1 / 2.0, "runs"),
            (layout.fpu.0 + layout.fpu.1 / 2.0, "FPU"),
            (layout.loads, "loads"),
            (layout.saves, "saves"),
            (layout.wipes, "wipes"),
        ];
        for (at, word) in rows {
            self.add(text(layout.words, (LEFT - 6.0, y + at + 3.5), word));
        }
        for run in &lane.runs {
            self.run(timeline, run, scale, (y + layout.runs.0, layout.runs.1));
        }
        for stay in &lane.stays {
            self.stay(timeline, stay, scale, (y + layout.fpu.0, layout.fpu.1));
        }
        for mark in &lane.marks {
            let Some(sign) = SIGNS.iter().find(|sign| sign.counter == mark.counter) else {
                continue; // the end of a stretch
            };
            let row = match sign.row {
                Row::Traps => layout.traps,
                Row::Loads => layout.loads,
                Row::Saves => layout.saves,
                Row::Wipes => layout.wipes,
            };
            self.sign(sign, (scale.x(mark.at), y + row));
        }
        if lane.until + 1 < scale.0.1 {
            let x = scale.x(lane.until);
            let place = [
                x,
                y + layout.runs.0,
                RIGHT - x,
                layout.wipes - layout.runs.0,
            ];
            self.add(bar("unknown", place));
            let why = if lane.lost > 0 {
                "no room for what came"
            } else {
                "ended"
            };
            if RIGHT - x > width(why) + 8.0 {
                self.add(text(
                    "middle",
                    (f64::midpoint(x, RIGHT), y + layout.height / 2.0),
                    why,
                ));
            }
        }
    }

    fn sign(&mut self, sign: &Sign, (x, y): (f64, f64)) {
        self.add(
            Path::new()
                .set("class", sign.class())
                .set("d", sign.path(x, y)),
        );
    }

    fn run(&mut self, timeline: &Timeline<'_>, run: &Run, scale: Scale, (y, height): (f64, f64)) {
        let colour = self.colour(timeline, run.lwp.who);
        let begun = if run.is_begun { " begun" } else { "" };
        let name = timeline.names.lwp(run.lwp);
        let label = (run.lwp.who != Who::Idle).then_some(&*name);
        let class = format!("run {colour}{begun}");
        self.stretch((&class, &name, label), run.when, scale, (y, height));
    }

    fn stay(&mut self, timeline: &Timeline<'_>, stay: &Stay, scale: Scale, place: (f64, f64)) {
        let of =
            |page: &mut Self, lwp: Lwp| (page.colour(timeline, lwp.who), timeline.names.lwp(lwp));
        let (state, (colour, name)) = match stay.of {
            Registers::Live(lwp) => ("live", of(self, lwp)),
            Registers::Clean(lwp) => ("clean", of(self, lwp)),
            Registers::Kernels => ("section", ("kernel".into(), "kernel section".into())),
            Registers::Nobodys => return,
        };
        let gained = if stay.is_begun { " gained" } else { "" };
        let given_up = if stay.is_ended { " given-up" } else { "" };
        self.has_clean |= state == "clean";
        let class = format!("stay {state} {colour}{gained}{given_up}");
        let title = format!("{name}, {state}");
        self.stretch((&class, &title, Some(&name)), stay.when, scale, place);
    }

    /// A bar with its name in it if there is room, and with its name and times where the pointer is.
    fn stretch(
        &mut self,
        (class, title, label): (&str, &str, Option<&str>),
        (begin, end): Stretch,
        scale: Scale,
        (y, height): (f64, f64),
    ) {
        let (left, right) = (scale.x(begin), scale.x(end));
        let says = format!("{title}: {:.4} to {:.4} ms", ms(begin), ms(end));
        let wide = (right - left).max(0.6);
        // An outline would be all that is seen of a narrow one.
        let thin = if wide < 2.5 { " thin" } else { "" };
        let place = [left, y, wide, height];
        self.add(bar(&format!("{class}{thin}"), place).add(Title::new(says)));
        let (size, room) = if height < 13.0 {
            ("small middle", 0.9)
        } else {
            ("middle", 1.0)
        };
        if let Some(label) = label
            && width(label) * room + 4.0 < wide
        {
            let middle = (left + wide / 2.0, y + height / 2.0 + 3.8);
            self.add(text(size, middle, label));
        }
    }

    fn colour(&mut self, timeline: &Timeline<'_>, who: Who) -> String {
        match who {
            Who::Idle => "idle".into(),
            Who::Kernel => "kernel".into(),
            Who::Job(_) => format!("c{}", self.colours.of(timeline.names.program(who))),
        }
    }

    /// The arrows of the cross-calls that this CPU asked for.
    fn calls(
        &mut self,
        lane: &Lane,
        lanes: &[Lane],
        scale: Scale,
        (layout, y, top): (Layout, f64, f64),
    ) {
        for call in &lane.asked {
            let begin = (scale.x(call.at), y + layout.traps);
            let holder = lanes
                .iter()
                .zip(0_u32..)
                .find(|(one, _)| one.cpu == call.cpu);
            let answered = holder.and_then(|(holder, nth)| {
                let same = |served: &&Call| (served.cpu, served.number) == (lane.cpu, call.number);
                Some((holder.served.iter().find(same)?.at, nth))
            });
            // One that is served after the window ends at its border.
            let (at, nth) = answered.unwrap_or((scale.0.1, holder.map_or(0, |(_, nth)| nth)));
            let middle = top + f64::from(nth) * layout.height + layout.fpu.0 + layout.fpu.1 / 2.0;
            let path = format!(
                "M{:.2},{:.1}L{:.2},{middle:.1}",
                begin.0,
                begin.1,
                scale.x(at)
            );
            let mut arrow = Path::new().set("class", "call xcalls").set("d", path);
            if answered.is_some() {
                arrow = arrow.set("marker-end", "url(#tip)");
            }
            self.add(arrow.add(Title::new(format!(
                "CPU {} asks CPU {}",
                lane.cpu, call.cpu
            ))));
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-6).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::round_step;

    #[test]
    fn times_on_the_axis_are_round() {
        for (least, step) in [
            (0.9, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (3.0, 5.0),
            (7.0, 10.0),
            (0.03, 0.05),
        ] {
            assert!(
                (round_step(least) - step).abs() < 1e-9,
                "{least}: {}",
                round_step(least)
            );
        }
    }
}
