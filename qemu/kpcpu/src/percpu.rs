//! libkvm's per-CPU calls: `kvm_getmaxcpu`, `kvm_getncpus`, `kvm_getpcpu`, `kvm_dpcpu_setcpu`, `kvm_read_zpcpu`,
//! `kvm_counter_u64_fetch`.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::handle::Kpcpu;
use crate::header::{Fields, Header};
use crate::table::Kind;

/// Which CPUs there are, and where their areas lie.
#[derive(Debug)]
pub(crate) struct Cpus {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    present: u64,
    started: u64,
    offline: u64,
    offsets: Vec<u64>,
}

/// What a CPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuState {
    /// It has its data, and has not run.
    Present,
    /// It runs.
    Started,
    /// It ran, and was put offline.
    Offline,
}

/// The fixed block of a CPU: FreeBSD's `struct pcpu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pcpu {
    /// The CPU's id.
    pub cpu: u32,
    /// What it is doing.
    pub state: CpuState,
    /// Where the block is.
    #[serde(serialize_with = "crate::hex::number")]
    pub address: u64,
    /// The LWP that runs on it, an address; 0 for none.
    #[serde(serialize_with = "crate::hex::number")]
    pub current_lwp: u64,
    /// Its idle LWP, an address; 0 for none.
    #[serde(serialize_with = "crate::hex::number")]
    pub idle_lwp: u64,
    /// What to add to a per-CPU name to get this CPU's address. FreeBSD: `pc_dynamic`.
    #[serde(serialize_with = "crate::hex::number")]
    pub dynamic: u64,
    /// Where the protocol keeps what it knows of the CPU (`CpuPcu`); 0 for nowhere.
    #[serde(serialize_with = "crate::hex::number")]
    pub pcu: u64,
    /// The kernel's own part.
    #[serde(serialize_with = "crate::hex::bytes")]
    pub extension: Vec<u8>,
}

impl Header {
    /// Is `address` in the initial values of per-CPU variables?
    pub(crate) fn is_template(&self, address: u64) -> bool {
        (self.template_start..self.template_stop).contains(&address)
    }
}

impl Kpcpu {
    /// The number that CPU ids are below: the bound of a table, not a count. FreeBSD: `kvm_getmaxcpu`.
    ///
    /// # Errors
    ///
    /// If the header cannot be read.
    #[doc(alias = "kvm_getmaxcpu")]
    pub fn getmaxcpu(&self) -> Result<u32> {
        self.consistent(|this| Ok(this.header()?.max_cpus))
    }

    /// How many CPUs are started. Their ids need not follow each other: see [`present`](Self::present). FreeBSD: `kvm_getncpus`.
    ///
    /// # Errors
    ///
    /// If the table of CPUs cannot be read.
    #[doc(alias = "kvm_getncpus")]
    pub fn getncpus(&self) -> Result<u32> {
        let started = self.consistent(|this| this.ids(|group| group.started))?;
        Ok(u32::try_from(started.len()).unwrap_or(u32::MAX))
    }

    /// The ids of the CPUs that have per-CPU data, in their order: started, offline, or not yet run.
    ///
    /// # Errors
    ///
    /// As [`getncpus`](Self::getncpus).
    pub fn present(&self) -> Result<Vec<u32>> {
        self.consistent(|this| this.ids(|group| group.present))
    }

    /// The ids, below the bound, of the CPUs in a set.
    fn ids(&self, set: impl Fn(&Group) -> u64) -> Result<Vec<u32>> {
        let (cpus, max) = (self.cpus()?, self.header()?.max_cpus);
        Ok((0..max).filter(|&cpu| cpus.is_in(cpu, &set)).collect())
    }

    /// Reads the fixed block of a CPU, `None` if there is no such CPU now. FreeBSD: `kvm_getpcpu`, whose three results in one
    /// pointer these are.
    ///
    /// # Errors
    ///
    /// If the number is one that no CPU can have, or the block cannot be read.
    #[doc(alias = "kvm_getpcpu")]
    pub fn getpcpu(&self, cpu: u32) -> Result<Option<Pcpu>> {
        self.consistent(|this| this.read_pcpu(cpu))
    }

    fn read_pcpu(&self, cpu: u32) -> Result<Option<Pcpu>> {
        let header = self.header()?;
        self.check_id(cpu)?;
        let cpus = self.cpus()?;
        if !cpus.is_in(cpu, |g| g.present) {
            return Ok(None);
        }
        let bytes = u64::from(header.pcpu_bytes);
        let address = self.on_cpu(header.pcpu, bytes, cpu)?;
        let block = self.read_vec(&format!("the block of CPU {cpu}"), address, bytes)?;
        let fields = Fields(&block);
        let extension = header.extension as usize;
        let end = extension.saturating_add(header.extension_bytes as usize);
        Ok(Some(Pcpu {
            cpu,
            state: match () {
                () if cpus.is_in(cpu, |g| g.started) => CpuState::Started,
                () if cpus.is_in(cpu, |g| g.offline) => CpuState::Offline,
                () => CpuState::Present,
            },
            address,
            current_lwp: fields.u64(8),
            idle_lwp: fields.u64(16),
            dynamic: fields.u64(24),
            pcu: fields.u64(40),
            extension: block.get(extension..end).unwrap_or_default().to_vec(),
        }))
    }

    /// Selects the CPU whose copies [`nlist`](Self::nlist) finds; 0 until set. FreeBSD: `kvm_dpcpu_setcpu`.
    ///
    /// # Errors
    ///
    /// If there is no such CPU now; the one before stays selected.
    #[doc(alias = "kvm_dpcpu_setcpu")]
    pub fn dpcpu_setcpu(&mut self, cpu: u32) -> Result<()> {
        self.consistent(|this| {
            this.check_id(cpu)?;
            let is_present = this.cpus()?.is_in(cpu, |g| g.present);
            is_present.then_some(()).ok_or(Error::CpuAbsent(cpu))
        })?;
        self.current_cpu = cpu;
        Ok(())
    }

    /// Reads a CPU's copy of an allocation or variable, and returns the number of bytes: all that were asked for. `base` is its
    /// name. FreeBSD: `kvm_read_zpcpu`.
    ///
    /// # Errors
    ///
    /// If the CPU is not there, the bytes are not all per-CPU data, or they cannot be read.
    #[doc(alias = "kvm_read_zpcpu")]
    pub fn read_zpcpu(&self, base: u64, buffer: &mut [u8], cpu: u32) -> Result<usize> {
        self.consistent(|this| {
            let address = this.on_cpu(base, buffer.len() as u64, cpu)?;
            this.read_as(&format!("CPU {cpu}'s copy of {base:#x}"), address, buffer)?;
            Ok(buffer.len())
        })
    }

    /// The value of the counter named `base`: the wrapping sum over the CPUs that are present, started or not. FreeBSD:
    /// `kvm_counter_u64_fetch`, where an error looks like 0 and sparse ids are left out. Of a kernel that runs and adds meanwhile, it
    /// lies between the sums at the begin and at the end of the call.
    ///
    /// # Errors
    ///
    /// As [`read_zpcpu`](Self::read_zpcpu).
    #[doc(alias = "kvm_counter_u64_fetch")]
    pub fn counter_u64_fetch(&self, base: u64) -> Result<u64> {
        let parts = self.counter_u64_percpu(base)?;
        Ok(parts
            .iter()
            .fold(0, |sum, (_, part)| sum.wrapping_add(*part)))
    }

    /// What each CPU has added to the counter named `base`.
    ///
    /// # Errors
    ///
    /// As [`read_zpcpu`](Self::read_zpcpu).
    pub fn counter_u64_percpu(&self, base: u64) -> Result<Vec<(u32, u64)>> {
        self.consistent(|this| {
            let part = |cpu| {
                let mut bytes = [0; 8];
                this.read_zpcpu(base, &mut bytes, cpu)?;
                Ok((cpu, u64::from_le_bytes(bytes)))
            };
            this.present()?.into_iter().map(part).collect()
        })
    }

    /// The base of a counter, by its name: what [`counter_u64_fetch`](Self::counter_u64_fetch) takes.
    ///
    /// # Errors
    ///
    /// If nothing has the name, or it was not allocated yet.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.consistent(|this| this.find_counter(name))
    }

    fn find_counter(&self, name: &str) -> Result<u64> {
        let is_counter = |kind| matches!(kind, Kind::Counter | Kind::CounterHandle);
        match self.descriptor(name, is_counter)? {
            Some(found) if found.kind == Kind::Counter => Ok(found.at),
            Some(found) => match self.read_u64(name, found.at)? {
                0 => Err(Error::NotAllocated(name.into())),
                base => Ok(base),
            },
            None if self.descriptor(name, |_| true)?.is_some() => Err(Error::OtherKind {
                name: name.into(),
                wanted: "a counter",
            }),
            None => Err(Error::NoName(name.into())),
        }
    }

    /// Where CPU `cpu` has what is named `name`.
    pub(crate) fn on_cpu(&self, name: u64, bytes: u64, cpu: u32) -> Result<u64> {
        let header = self.header()?;
        self.check_id(cpu)?;
        let offset = self.cpus()?.offset(cpu).ok_or(Error::CpuAbsent(cpu))?;
        let start = header.template_start;
        let inside = name
            .checked_sub(start)
            .and_then(|skip| skip.checked_add(bytes))
            .is_some_and(|end| end <= header.stride);
        if !inside {
            return Err(Error::NotPerCpu {
                address: name,
                bytes,
                start,
                stop: start.wrapping_add(header.stride),
            });
        }
        Ok(name.wrapping_add(offset))
    }

    fn check_id(&self, cpu: u32) -> Result<()> {
        match self.header()?.max_cpus {
            max if cpu < max => Ok(()),
            max => Err(Error::CpuTooBig { cpu, max }),
        }
    }

    pub(crate) fn read_cpus(&self) -> Result<Cpus> {
        let header = self.header()?;
        let group_bytes = u64::from(header.group_bytes);
        let bytes = u64::from(header.n_groups) * group_bytes;
        let table = self.read_vec("the table of CPUs", header.groups, bytes)?;
        let groups = table
            .chunks_exact(header.group_bytes.max(1) as usize)
            .map(|group| {
                let fields = Fields(group);
                Group {
                    present: fields.u64(0),
                    started: fields.u64(8),
                    offline: fields.u64(16),
                    offsets: (0..64).map(|place| fields.u64(24 + 8 * place)).collect(),
                }
            });
        Ok(Cpus {
            groups: groups.collect(),
        })
    }
}

impl Cpus {
    fn is_in(&self, cpu: u32, set: impl Fn(&Group) -> u64) -> bool {
        let group = self.groups.get((cpu / 64) as usize);
        group.is_some_and(|group| set(group) >> (cpu % 64) & 1 == 1)
    }

    fn offset(&self, cpu: u32) -> Option<u64> {
        let group = self.groups.get((cpu / 64) as usize)?;
        self.is_in(cpu, |g| g.present)
            .then(|| group.offsets[(cpu % 64) as usize])
    }
}
