//! Counters and per-CPU variables.

use std::fmt::Write;

use comfy_table::Table;
use pcu9_kpcpu::{Error, Kind, Kpcpu};
use serde::Serialize;

use crate::show::{Output, table};

#[derive(Serialize)]
struct Counter {
    name: String,
    value: u64,
    per_cpu: Vec<(u32, u64)>,
}

pub(crate) fn counters(kernel: &Kpcpu, output: &Output) -> Result<(), Box<dyn std::error::Error>> {
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
        counters.push(Counter {
            name: descriptor.name,
            value: per_cpu
                .iter()
                .fold(0, |sum, (_, part)| sum.wrapping_add(*part)),
            per_cpu,
        });
    }
    let cpus = kernel.present()?;
    output.write(&counters, |counters| vec![of_counters(counters, &cpus)])
}

fn of_counters(counters: &[Counter], cpus: &[u32]) -> Table {
    let head = ["COUNTER".to_owned(), "VALUE".to_owned()];
    let mut table = table(
        head.into_iter()
            .chain(cpus.iter().map(|cpu| format!("CPU {cpu}"))),
        1,
    );
    for counter in counters {
        let first = [counter.name.clone(), counter.value.to_string()];
        let parts = counter.per_cpu.iter().map(|(_, part)| part.to_string());
        table.add_row(first.into_iter().chain(parts));
    }
    table
}

#[derive(Serialize)]
struct Copy {
    cpu: u32,
    address: String,
    bytes: String,
    value: Option<i128>,
}

pub(crate) fn dpcpu(
    kernel: &mut Kpcpu,
    name: &str,
    cpu: Option<u32>,
    output: &Output,
) -> Result<(), Box<dyn std::error::Error>> {
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
    output.write(&copies, |copies| vec![of_copies(copies, name, &type_name)])
}

/// The type as the kernel's source has it; empty for a symbol that no descriptor names.
fn type_of(kernel: &Kpcpu, name: &str) -> Result<String, Error> {
    let is_it = |whole: &str| {
        let rest = whole.strip_suffix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
    };
    let table = kernel.table()?;
    let found = table.into_iter().find(|d| is_it(&d.name));
    Ok(found.map(|d| d.type_name).unwrap_or_default())
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

fn of_copies(copies: &[Copy], name: &str, type_name: &str) -> Table {
    let mut table = table(["CPU", "ADDRESS", &format!("{name}: {type_name}")], 2);
    for copy in copies {
        let value = copy.value.map(|value| value.to_string());
        let value = value.unwrap_or_else(|| copy.bytes.clone());
        table.add_row([copy.cpu.to_string(), copy.address.clone(), value]);
    }
    table
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
