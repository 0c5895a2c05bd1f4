//! Counters and per-CPU variables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use pcu9_kpcpu::stat::{Column, Layout, Page, per_second, rate};
use pcu9_kpcpu::{Error, Kind, Kpcpu};
use serde::{Serialize, Serializer};

use crate::Result;

#[derive(Serialize)]
struct Counter {
    name: String,
    value: u64,
    per_cpu: Vec<(u32, u64)>,
}

/// From this width on counters have their whole names.
const WIDE: usize = 120;

/// All counters that there are.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Counters(Vec<Counter>);

impl Counters {
    pub(crate) fn read(kernel: &Kpcpu) -> Result<Self> {
        Ok(kernel.consistent(|kernel| {
            let mut counters = Vec::new();
            for descriptor in kernel.table()? {
                if !matches!(descriptor.kind, Kind::Counter | Kind::CounterHandle) {
                    continue;
                }
                let base = match kernel.counter(&descriptor.name) {
                    Err(Error::NotAllocated(_)) => continue,
                    base => base?,
                };
                let per_cpu = kernel.counter_u64_percpu(base)?;
                let parts = per_cpu.iter().map(|(_, part)| part);
                counters.push(Counter {
                    name: descriptor.name,
                    value: parts.fold(0, |sum, part| sum.wrapping_add(*part)),
                    per_cpu,
                });
            }
            Ok(Self(counters))
        })?)
    }

    /// Values and each CPU's part; or since `before` values, and all else as rates per second.
    pub(crate) fn add_to(&self, page: &mut Page, before: Option<(&Self, Duration)>) {
        if let Some((_, elapsed)) = before {
            let seconds = elapsed.as_secs_f64();
            page.wrapped(&format!(
                "values, and counts per second over the last {seconds:.1} s"
            ));
            page.line("");
        }
        let parts = self.0.iter().flat_map(|counter| &counter.per_cpu);
        let cpus: BTreeSet<u32> = parts.map(|(cpu, _)| *cpu).collect();
        let mut columns = vec![Column::text("COUNTER"), Column::number("VALUE")];
        columns.extend(before.map(|_| Column::number("PER SECOND")));
        let ranked = (1..).zip(&cpus);
        columns.extend(ranked.map(|(rank, cpu)| Column::number(format!("CPU {cpu}")).rank(rank)));
        let mut layout = Layout::new(columns);
        for counter in &self.0 {
            let name = match page.width() {
                WIDE.. => &counter.name,
                _ => self.short_name(&counter.name),
            };
            let mut row = vec![name.to_owned(), counter.value.to_string()];
            let old = before.map(|(before, elapsed)| (before.named(&counter.name), elapsed));
            row.extend(old.map(|(old, elapsed)| {
                let old = old.map_or(0, |old| old.value);
                rate(counter.value.wrapping_sub(old), elapsed)
            }));
            row.extend(cpus.iter().map(|&cpu| {
                let part = counter.part(cpu);
                match old {
                    None => part.to_string(),
                    Some((old, elapsed)) => {
                        let old = old.map_or(0, |old| old.part(cpu));
                        rate(part.wrapping_sub(old), elapsed)
                    }
                }
            }));
            layout.row(row);
        }
        layout.add_to(page);
    }

    /// Counts per second, by name.
    pub(crate) fn rates(&self, before: &Self, elapsed: Duration) -> BTreeMap<&str, f64> {
        let rates = self.0.iter().map(|counter| {
            let old = before.named(&counter.name).map_or(0, |old| old.value);
            let events = counter.value.wrapping_sub(old);
            (counter.name.as_str(), per_second(events, elapsed))
        });
        rates.collect()
    }

    /// As many of the last parts of a name as no other counter has.
    fn short_name<'a>(&self, name: &'a str) -> &'a str {
        let begins = name
            .rmatch_indices("::")
            .map(|(at, colons)| at + colons.len());
        let is_unique = |tail: &str| {
            let has_it = |other: &&Counter| other.name == tail || is_tail(&other.name, tail);
            self.0.iter().filter(has_it).count() == 1
        };
        let tails = begins.map(|begin| &name[begin..]);
        { tails }.find(|tail| is_unique(tail)).unwrap_or(name)
    }

    fn named(&self, name: &str) -> Option<&Counter> {
        self.0.iter().find(|counter| counter.name == name)
    }
}

impl Counter {
    fn part(&self, cpu: u32) -> u64 {
        let mut parts = self.per_cpu.iter();
        parts
            .find(|(number, _)| *number == cpu)
            .map_or(0, |(_, part)| *part)
    }
}

#[derive(Serialize)]
struct Copy {
    cpu: u32,
    address: String,
    bytes: String,
    value: Option<i128>,
}

/// A variable on each CPU that was asked for.
pub(crate) struct Copies {
    name: String,
    type_name: String,
    on_cpus: Vec<Copy>,
}

impl Serialize for Copies {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        self.on_cpus.serialize(to)
    }
}

impl Copies {
    pub(crate) fn read(kernel: &mut Kpcpu, name: &str, cpu: Option<u32>) -> Result<Self> {
        let type_name = type_of(kernel, name)?;
        let cpus = match cpu {
            Some(cpu) => vec![cpu],
            None => kernel.present()?,
        };
        let mut copies = Vec::new();
        for cpu in cpus {
            kernel.dpcpu_setcpu(cpu)?;
            let found = kernel.nlist(name)?;
            if found.cpu.is_none() {
                return Err(format!("`{name}` is not a per-CPU variable").into());
            }
            let mut bytes = vec![0; usize::try_from(found.bytes)?.min(1 << 16)];
            kernel.read(found.address, &mut bytes)?;
            copies.push(Copy {
                cpu,
                address: format!("{:#x}", found.address),
                value: number(&type_name, &bytes),
                bytes: hex(&bytes),
            });
        }
        Ok(Self {
            name: name.into(),
            type_name,
            on_cpus: copies,
        })
    }

    pub(crate) fn add_to(&self, page: &mut Page) {
        let head = format!("{}: {}", self.name, self.type_name);
        let mut layout = Layout::new([
            Column::text("CPU"),
            Column::text("ADDRESS").rank(1),
            Column::number(head),
        ]);
        for copy in &self.on_cpus {
            let value = copy.value.map(|value| value.to_string());
            let value = value.unwrap_or_else(|| copy.bytes.clone());
            layout.row([copy.cpu.to_string(), copy.address.clone(), value]);
        }
        layout.add_to(page);
    }
}

/// The type as the kernel's source has it; empty for a symbol that no descriptor names.
fn type_of(kernel: &Kpcpu, name: &str) -> Result<String> {
    let mut table = kernel.table()?.into_iter();
    let found = table.find(|d| d.name == name || is_tail(&d.name, name));
    Ok(found.map(|d| d.type_name).unwrap_or_default())
}

/// Are the last parts of `whole` those of `tail`?
fn is_tail(whole: &str, tail: &str) -> bool {
    whole
        .strip_suffix(tail)
        .is_some_and(|rest| rest.ends_with("::"))
}

/// The number that the bytes are, if the type's name says that they are one.
fn number(type_name: &str, bytes: &[u8]) -> Option<i128> {
    let is_signed = ["i8", "i16", "i32", "i64", "isize"]
        .iter()
        .any(|t| type_name.ends_with(t))
        || type_name.contains("AtomicI");
    let is_unsigned = ["u8", "u16", "u32", "u64", "usize", "bool"]
        .iter()
        .any(|t| type_name.ends_with(t))
        || type_name.contains("AtomicU");
    if !(is_signed || is_unsigned) || bytes.is_empty() || bytes.len() > 8 {
        return None;
    }
    let fill = if is_signed && bytes[bytes.len() - 1] & 0x80 != 0 {
        0xff
    } else {
        0
    };
    let mut whole = [fill; 16];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i128::from_le_bytes(whole))
}

/// Bytes in the order of memory, with a space after every eight.
fn hex(bytes: &[u8]) -> String {
    let words = bytes.chunks(8).map(|word| {
        word.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    });
    words.collect::<Vec<_>>().join(" ")
}
