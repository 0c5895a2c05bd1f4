//! `trace.json`: Chrome's trace-event format, which <https://ui.perfetto.dev> and `chrome://tracing` open.
//!
//! A run is a process; each CPU has two threads, one for who runs and one for whose state is in the FPU's registers. A stretch
//! is a complete event (`X`), a count an instant (`i`), a cross-call a flow (`s`, `f`) from who runs on the asking CPU to the
//! registers of the other. Times are microseconds; the source of the format: "Trace Event Format", Google, section
//! "Event Descriptions".

use serde_json::{Value, json};

use super::lane::{Lane, Run, Stay};
use super::{Stretch, Timeline, ms};
use crate::protocol::{Lwp, Registers};

/// Returns the JSON object; everything that was recorded is in it.
pub(crate) fn trace(timelines: &[Timeline<'_>]) -> Value {
    let processes = timelines.iter().zip(1_u64..);
    let events: Vec<Value> = processes.flat_map(|(one, pid)| process(one, pid)).collect();
    json!({
        "displayTimeUnit": "ms",
        "otherData": {
            "time": "the guest's time stamp counter, since the first program began",
            "lost events": timelines.iter().map(Timeline::lost).sum::<u64>(),
        },
        "traceEvents": events,
    })
}

fn process(timeline: &Timeline<'_>, pid: u64) -> Vec<Value> {
    let named = |what: &str, tid: u64, name: &str| json!({"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}});
    let (from, until) = timeline.recorded();
    let mut events = vec![
        named("process_name", 0, &timeline.title),
        json!({
            "ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": pid}
        }),
    ];
    for lane in timeline.lanes((from, until.saturating_add(1))) {
        let track = Track {
            timeline,
            lane: &lane,
            pid,
        };
        for (tid, what) in [(track.runs(), "runs"), (track.fpu(), "FPU")] {
            events.push(named(
                "thread_name",
                tid,
                &format!("CPU {} {what}", lane.cpu),
            ));
            events.push(json!({
                "ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}
            }));
        }
        events.extend(lane.runs.iter().map(|run| track.run(run)));
        events.extend(lane.stays.iter().map(|stay| track.stay(stay)));
        events.extend(lane.marks.iter().map(|mark| {
            json!({
                "ph": "i", "s": "t", "cat": "count", "name": mark.counter, "pid": pid, "tid": track.runs(),
                "ts": Track::us(mark.at), "args": {"lwp": mark.during.map(|lwp| lwp.number)},
            })
        }));
        events.extend(lane.asked.iter().map(|call| {
            json!({
                "ph": "s", "cat": "xcalls", "name": "cross-call", "id": id(pid, lane.cpu, call.number),
                "pid": pid, "tid": track.runs(), "ts": Track::us(call.at), "args": {"asks": call.cpu},
            })
        }));
        events.extend(lane.served.iter().map(|call| {
            json!({
                "ph": "f", "bp": "e", "cat": "xcalls", "name": "cross-call", "id": id(pid, call.cpu, call.number),
                "pid": pid, "tid": track.fpu(), "ts": Track::us(call.at), "args": {"serves": call.cpu},
            })
        }));
    }
    events
}

/// A flow's number, the same at both ends and nobody else's. Readers take a text for a number too, and drop others.
fn id(pid: u64, asker: usize, number: u64) -> u64 {
    // Below 2^53, which is as far as numbers are exact in JSON.
    pid << 48 | (asker as u64 & 0xff) << 40 | number & 0xff_ffff_ffff
}

struct Track<'a> {
    timeline: &'a Timeline<'a>,
    lane: &'a Lane,
    pid: u64,
}

impl Track<'_> {
    fn runs(&self) -> u64 {
        2 * self.lane.cpu as u64 + 1
    }

    fn fpu(&self) -> u64 {
        self.runs() + 1
    }

    /// Microseconds. Readers multiply by 1000 and cut what is behind the point, so a quarter of a nanosecond keeps stretches
    /// that follow each other from overlapping by one.
    fn us(ns: u64) -> f64 {
        ms(ns) * 1000.0 + 0.000_25
    }

    fn run(&self, run: &Run) -> Value {
        let name = self.timeline.names.lwp(run.lwp);
        let args = json!({"lwp": run.lwp.number, "switched": run.is_begun});
        self.stretch("run", &name, (self.runs(), run.when), &args)
    }

    fn stay(&self, stay: &Stay) -> Value {
        let of = |lwp: Lwp| (self.timeline.names.lwp(lwp), Some(lwp.number));
        let (state, (name, lwp)) = match stay.of {
            Registers::Live(lwp) => ("live", of(lwp)),
            Registers::Clean(lwp) => ("clean", of(lwp)),
            Registers::Kernels => ("section", ("kernel section".into(), None)),
            Registers::Nobodys => ("nobody's", ("nobody".into(), None)),
        };
        let args =
            json!({"lwp": lwp, "state": state, "gained": stay.is_begun, "given up": stay.is_ended});
        self.stretch("owner", &name, (self.fpu(), stay.when), &args)
    }

    fn stretch(&self, cat: &str, name: &str, (tid, when): (u64, Stretch), args: &Value) -> Value {
        let (begin, end) = when;
        json!({
            "ph": "X", "cat": cat, "name": name, "pid": self.pid, "tid": tid,
            "ts": Self::us(begin), "dur": Self::us(end - begin), "args": args,
        })
    }
}
