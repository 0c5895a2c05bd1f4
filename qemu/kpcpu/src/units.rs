//! The protocol's side of the kernel: who owns which unit on which CPU, where an LWP's newest state is, what was counted.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::handle::Kpcpu;
use crate::header::Fields;

const LIVE: u64 = 1 << 0;
const VALID: u64 = 1 << 1;
const SECTION: u64 = 1 << 1;

/// More LWPs than a kernel has, and no more than are read in some seconds.
const LWPS_MAX: usize = 1 << 20;

/// Who has the registers of a unit on a CPU: `pcu9::pcu`'s owner and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Nobody.
    None,
    /// The LWP at this address: the registers may be newer than its memory.
    Live(#[serde(serialize_with = "crate::hex::number")] u64),
    /// The registers equal what an LWP has in memory, if its word has the same serial. The address is an identity, perhaps of an
    /// LWP that is gone.
    Clean(#[serde(serialize_with = "crate::hex::number")] u64),
    /// A kernel section.
    Section,
}

/// What a CPU knows of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Its name in the kernel's table.
    pub name: String,
    /// Who has the registers.
    pub owner: Owner,
    /// The serial of the registers' contents.
    pub serial: u64,
    /// Is the gate open?
    pub is_enabled: bool,
    /// The domain whose bits the registers hold: 0 is none, all ones several.
    pub residue: u64,
    /// The counters, in the order of [`Kpcpu::counter_names`].
    pub counters: Vec<u64>,
}

/// Where an LWP's newest state of a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// It has none: the next use begins with the initial state.
    None,
    /// In its memory.
    Memory,
    /// In the registers of that CPU; its memory may be older.
    Live(u32),
    /// In its memory, and the registers of that CPU still equal it.
    Linked(u32),
}

/// An LWP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lwp {
    /// Where it is.
    #[serde(serialize_with = "crate::hex::number")]
    pub address: u64,
    /// Its number, if the kernel says where that stands.
    pub number: Option<u64>,
    /// Its name, if the kernel says where that stands.
    pub name: Option<String>,
    /// Where its state of each unit is.
    pub units: Vec<Place>,
}

impl Kpcpu {
    /// The names of the units, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn unit_names(&self) -> Result<Vec<String>> {
        self.consistent(Self::read_unit_names)
    }

    fn read_unit_names(&self) -> Result<Vec<String>> {
        let header = self.header()?;
        let text = self.read_text("the names of the units", header.unit_names)?;
        let mut names: Vec<_> = text.lines().map(String::from).collect();
        // A unit without a name is called by its number.
        let n_units = header.pcu.n_units as usize;
        names.truncate(n_units);
        names.extend((names.len()..n_units).map(|number| number.to_string()));
        Ok(names)
    }

    /// The names of a unit's counters, in their order in memory: `pcu9::pcu::UnitStats` explains them.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn counter_names(&self) -> Result<Vec<String>> {
        self.consistent(Self::read_counter_names)
    }

    fn read_counter_names(&self) -> Result<Vec<String>> {
        let header = self.header()?;
        let text = self.read_text("the names of the counters", header.counter_names)?;
        let n_counters = header.pcu.n_counters as usize;
        Ok(text.lines().take(n_counters).map(String::from).collect())
    }

    /// What a CPU knows of its units; empty if the kernel keeps no protocol state for it.
    ///
    /// # Errors
    ///
    /// If the CPU is not there, or its state cannot be read.
    pub fn units(&self, cpu: u32) -> Result<Vec<Unit>> {
        self.consistent(|this| this.read_units(cpu))
    }

    fn read_units(&self, cpu: u32) -> Result<Vec<Unit>> {
        let block = self.getpcpu(cpu)?.ok_or(Error::CpuAbsent(cpu))?;
        if block.pcu == 0 {
            return Ok(Vec::new());
        }
        let layout = self.header()?.pcu;
        let attention_at = block.pcu.wrapping_add(layout.cpu_attention.into());
        let attention = self.read_u64(&format!("the open gates of CPU {cpu}"), attention_at)?;
        let names = self.unit_names()?;
        let read = |(index, name): (usize, &String)| {
            let skip = u64::from(layout.cpu_units) + index as u64 * u64::from(layout.unit_bytes);
            let what = format!("unit {name} of CPU {cpu}");
            let entry = self.read_vec(
                &what,
                block.pcu.wrapping_add(skip),
                layout.unit_bytes.into(),
            )?;
            let fields = Fields(&entry);
            let (owner, tag) = (
                fields.u64(layout.unit_owner as usize),
                fields.u64(layout.unit_tag as usize),
            );
            let counter = |number| fields.u64(layout.unit_counters as usize + 8 * number);
            Ok(Unit {
                name: name.clone(),
                owner: match tag >> 16 {
                    _ if tag & LIVE != 0 => Owner::Live(owner),
                    _ if tag & SECTION != 0 => Owner::Section,
                    0 => Owner::None,
                    _ => Owner::Clean(owner),
                },
                serial: tag >> 16,
                is_enabled: attention >> index & 1 == 1,
                residue: fields.u64(layout.unit_residue as usize),
                counters: (0..layout.n_counters as usize).map(counter).collect(),
            })
        };
        names.iter().enumerate().map(read).collect()
    }

    /// All LWPs, in the order of the kernel's list.
    ///
    /// # Errors
    ///
    /// If the kernel keeps no list that it told of, or the list is damaged.
    pub fn lwps(&self) -> Result<Vec<Lwp>> {
        self.consistent(Self::read_lwps)
    }

    fn read_lwps(&self) -> Result<Vec<Lwp>> {
        let layout = self.header()?.lwp;
        let list = layout.list.ok_or(Error::NotSaid("where its LWPs are"))?;
        let next = layout
            .next
            .ok_or(Error::NotSaid("how its LWPs are linked"))?;
        let mut lwps = Vec::new();
        let mut seen = HashSet::new();
        let mut at = self.read_u64("the first LWP", list)?;
        while at != 0 {
            if !seen.insert(at) {
                return Err(Error::Loop(at));
            }
            if lwps.len() == LWPS_MAX {
                return Err(Error::TooMany(LWPS_MAX));
            }
            lwps.push(self.lwp(at)?);
            at = self.read_u64("the next LWP", at.wrapping_add(next.into()))?;
        }
        Ok(lwps)
    }

    /// The LWP at an address: that of a CPU's current LWP or of a live owner, say.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or the kernel does not say where its PCU state is.
    pub fn lwp(&self, address: u64) -> Result<Lwp> {
        self.consistent(|this| this.read_lwp(address))
    }

    fn read_lwp(&self, address: u64) -> Result<Lwp> {
        let header = self.header()?;
        let (layout, pcu) = (header.lwp, header.pcu);
        let what = format!("the LWP at {address:#x}");
        let pcu_at = layout
            .pcu
            .ok_or(Error::NotSaid("where an LWP's PCU state is"))?;
        let words_at = address
            .wrapping_add(pcu_at.into())
            .wrapping_add(pcu.lwp_words.into());
        let words = self.read_vec(&what, words_at, u64::from(pcu.n_units) * 8)?;
        let place = |index| self.place(index, Fields(&words).u64(8 * index));
        let number = |at: u32| self.read_u64(&what, address.wrapping_add(at.into()));
        let name = |(at, bytes): (u32, u32)| -> Result<String> {
            let bytes = u64::from(bytes.min(1 << 12));
            let name = self.read_vec(&what, address.wrapping_add(at.into()), bytes)?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            Ok(String::from_utf8_lossy(name).into_owned())
        };
        Ok(Lwp {
            address,
            number: layout.number.map(number).transpose()?,
            name: layout.name.map(name).transpose()?,
            units: (0..pcu.n_units as usize)
                .map(place)
                .collect::<Result<_>>()?,
        })
    }

    /// What an LWP's word says; a clean one is worth what the CPU's tag makes of it.
    fn place(&self, unit: usize, word: u64) -> Result<Place> {
        let cpu = u32::try_from((word >> 2) & 0x3fff)
            .unwrap_or(0)
            .checked_sub(1);
        Ok(match cpu {
            Some(cpu) if word & LIVE != 0 => Place::Live(cpu),
            _ if word & VALID == 0 => Place::None,
            Some(cpu) if self.is_linked(unit, word, cpu)? => Place::Linked(cpu),
            _ => Place::Memory,
        })
    }

    fn is_linked(&self, unit: usize, word: u64, cpu: u32) -> Result<bool> {
        if cpu >= self.getmaxcpu()? {
            return Ok(false);
        }
        let Some(block) = self.getpcpu(cpu)?.filter(|block| block.pcu != 0) else {
            return Ok(false);
        };
        let layout = self.header()?.pcu;
        let entry = u64::from(layout.cpu_units) + unit as u64 * u64::from(layout.unit_bytes);
        let at = block.pcu.wrapping_add(entry + u64::from(layout.unit_tag));
        let tag = self.read_u64(&format!("the tag of unit {unit} of CPU {cpu}"), at)?;
        Ok(tag & (LIVE | SECTION) == 0 && tag >> 16 == word >> 16)
    }
}
