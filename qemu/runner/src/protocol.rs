//! The lines by which a kernel talks to the runner: those that begin with `@`.

mod events;
mod slices;

pub(crate) use events::{Happening, Lwp, Registers, What, counters as counted};
pub(crate) use slices::{Slice, Who};

/// The per-CPU counters that every kernel reports.
pub(crate) const COUNTERS: [&str; 23] = [
    "switches",
    "traps",
    "inits",
    "restores",
    "reenables_trap",
    "reenables_switch",
    "reenables_load",
    "saves",
    "releases",
    "xcalls",
    "migrations",
    "spurious",
    "failed",
    "loads",
    "preloads",
    "elided_restores",
    "elided_saves",
    "probes",
    "discards",
    "xcalls_raced",
    "wipes",
    "eager_saves",
    "eager_restores",
];

/// One line of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The kernel runs: `key=value` pairs about the machine.
    Boot(Vec<(String, String)>),
    /// Job `job` is copy `copy` of program `name`.
    Job { job: usize, name: String, copy: u32 },
    /// Job `job` was not started since the CPU lacks `feature`.
    Skip {
        job: usize,
        name: String,
        copy: u32,
        feature: String,
    },
    /// Job `job` wrote these bytes.
    Out { job: usize, bytes: Vec<u8> },
    /// The first process of job `job` ended with this status.
    Exit { job: usize, status: i32 },
    /// The first process of job `job` was killed by a signal, or the kernel could not serve one of its processes.
    Fault { job: usize, text: String },
    /// Job `job` could not be started.
    Error { job: usize, text: String },
    /// The counters of a CPU.
    Cpu {
        cpu: usize,
        counters: Vec<(String, u64)>,
    },
    /// Slices of a CPU, one after the other without a gap.
    Slices { cpu: usize, slices: Vec<Slice> },
    /// What the kernel's trace of a CPU has: slices, slices that there was no room for, and ticks in a millisecond.
    Trace {
        cpu: usize,
        slices: u64,
        lost: u64,
        tsc_khz: u64,
    },
    /// What happened on a CPU, in order.
    Events { cpu: usize, events: Vec<Happening> },
    /// What the kernel's timeline of a CPU has: `key=value` pairs, the counters of the same time among them.
    Timeline {
        cpu: usize,
        pairs: Vec<(String, u64)>,
    },
    /// Of the core file of a process of job `job`.
    Core {
        job: usize,
        pid: u64,
        part: CorePart,
    },
    /// The last line: did the kernel find everything in order?
    End { ok: bool },
    /// The kernel panicked.
    Panic(String),
}

/// A part of a core file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CorePart {
    /// It begins, and will have this many bytes; those that do not come are zero.
    Begin(u64),
    /// Bytes, and where they belong.
    Piece(u64, Vec<u8>),
    /// It is complete.
    End,
}

/// Decodes a line. `None`: it is the kernel's log. An error: it looks like the protocol's and is not.
pub(crate) fn decode(line: &str) -> Option<Result<Event, String>> {
    let rest = line.strip_prefix('@')?;
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let event = event(word, rest.trim());
    let short: String = line.chars().take(120).collect();
    Some(
        event
            .ok_or_else(|| format!("the kernel wrote a line that the runner cannot read: {short}")),
    )
}

fn event(word: &str, rest: &str) -> Option<Event> {
    let (first, others) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut words = others.split_whitespace();
    Some(match word {
        "boot" => Event::Boot(
            rest.split_whitespace()
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ),
        "job" => Event::Job {
            job: first.parse().ok()?,
            name: words.next()?.to_owned(),
            copy: words.next()?.parse().ok()?,
        },
        "skip" => Event::Skip {
            job: first.parse().ok()?,
            name: words.next()?.to_owned(),
            copy: words.next()?.parse().ok()?,
            feature: words.next()?.to_owned(),
        },
        "out" => Event::Out {
            job: first.parse().ok()?,
            bytes: hex(others)?,
        },
        "exit" => Event::Exit {
            job: first.parse().ok()?,
            status: others.parse().ok()?,
        },
        "fault" => Event::Fault {
            job: first.parse().ok()?,
            text: others.to_owned(),
        },
        "error" => Event::Error {
            job: first.parse().ok()?,
            text: others.to_owned(),
        },
        "core" => Event::Core {
            job: first.parse().ok()?,
            pid: words.next()?.parse().ok()?,
            part: core_part(words)?,
        },
        "cpu" => Event::Cpu {
            cpu: first.parse().ok()?,
            counters: pairs(words)?,
        },
        "slice" => Event::Slices {
            cpu: first.parse().ok()?,
            slices: slices::decode(others)?,
        },
        "event" => Event::Events {
            cpu: first.parse().ok()?,
            events: events::decode(others)?,
        },
        "timeline" => Event::Timeline {
            cpu: first.parse().ok()?,
            pairs: pairs(words)?,
        },
        "trace" => {
            let cpu = first.parse().ok()?;
            let pairs = pairs(words)?;
            let value = |name| {
                let pair = pairs.iter().find(|(key, _)| key == name);
                pair.map(|&(_, value)| value)
            };
            Event::Trace {
                cpu,
                slices: value("slices")?,
                lost: value("lost")?,
                tsc_khz: value("tsc_khz")?,
            }
        }
        "end" => Event::End {
            ok: match rest {
                "ok" => true,
                "failed" => false,
                _ => return None,
            },
        },
        "panic" => Event::Panic(rest.to_owned()),
        _ => return None,
    })
}

fn core_part<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<CorePart> {
    let part = match words.next()? {
        "begin" => CorePart::Begin(words.next()?.parse().ok()?),
        "at" => CorePart::Piece(words.next()?.parse().ok()?, hex(words.next()?)?),
        "end" => CorePart::End,
        _ => return None,
    };
    words.next().is_none().then_some(part)
}

/// Reads `key=number` pairs.
fn pairs<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<(String, u64)>> {
    words
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{CorePart, Event, decode};

    fn event(line: &str) -> Event {
        decode(line)
            .expect("a line of the protocol")
            .expect("a good one")
    }

    #[test]
    fn each_line_is_decoded() {
        assert_eq!(
            event("@boot cpus=4 xsave=xsaveopt"),
            Event::Boot(vec![
                ("cpus".into(), "4".into()),
                ("xsave".into(), "xsaveopt".into())
            ])
        );
        let (job, name, copy) = (3, "nbody".to_owned(), 1);
        assert_eq!(
            event("@job 3 nbody 1"),
            Event::Job {
                job,
                name: name.clone(),
                copy
            }
        );
        assert_eq!(
            event("@skip 3 nbody 1 avx"),
            Event::Skip {
                job,
                name,
                copy,
                feature: "avx".into()
            }
        );
        assert_eq!(
            event("@out 0 610aff"),
            Event::Out {
                job: 0,
                bytes: b"a\n\xff".to_vec()
            }
        );
        assert_eq!(
            event("@exit 2 139"),
            Event::Exit {
                job: 2,
                status: 139
            }
        );
        assert_eq!(
            event("@fault 2 #PF at 0x10"),
            Event::Fault {
                job: 2,
                text: "#PF at 0x10".into()
            }
        );
        assert_eq!(
            event("@cpu 1 traps=5 loads=0"),
            Event::Cpu {
                cpu: 1,
                counters: vec![("traps".into(), 5), ("loads".into(), 0)]
            }
        );
        let trace = Event::Trace {
            cpu: 1,
            slices: 5,
            lost: 0,
            tsc_khz: 1000,
        };
        assert_eq!(event("@trace 1 slices=5 lost=0 tsc_khz=1000"), trace);
        let core = |part| Event::Core {
            job: 2,
            pid: 7,
            part,
        };
        assert_eq!(event("@core 2 7 begin 8192"), core(CorePart::Begin(8192)));
        let piece = CorePart::Piece(4096, vec![0x7f, 0]);
        assert_eq!(event("@core 2 7 at 4096 7f00"), core(piece));
        assert_eq!(event("@core 2 7 end"), core(CorePart::End));
        assert_eq!(event("@end ok"), Event::End { ok: true });
        assert_eq!(
            event("@panic at the disco"),
            Event::Panic("at the disco".into())
        );
    }

    #[test]
    fn log_lines_are_not_the_protocols_and_damaged_ones_are_errors() {
        assert_eq!(decode("pcu9 testbed, 4 CPUs"), None);
        assert_eq!(decode(""), None);
        for damaged in [
            "@out 0 61f",
            "@out 0 6g",
            "@out x 61",
            "@exit 0",
            "@job 1 nbody",
            "@what",
            "@",
            "@cpu 0 traps",
            "@cpu 0 traps=-1",
            "@end maybe",
            "@trace 0 slices=1",
            "@slice 0",
            "@event 0",
            "@event 0 0 1,s",
            "@timeline 0 from",
            "@core 2 7",
            "@core 2 7 begin",
            "@core 2 7 at 5 7",
            "@core 2 7 at x 77",
            "@core 2 7 end 1",
            "@core 2 7 middle",
            "@slice 0 10 5,1,w",
        ] {
            let error = decode(damaged).expect("protocol").expect_err("damaged");
            assert!(error.contains(damaged), "{error}");
        }
    }
}
