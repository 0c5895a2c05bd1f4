//! Names: the descriptors of the header, and the kernel's symbols. FreeBSD: `kvm_nlist`(3).

use serde::Serialize;

use crate::error::{Error, Result};
use crate::handle::Kpcpu;
use crate::header::{Fields, Text};

/// What a descriptor describes: `pcu9::percpu::descriptor::Kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A variable of `dpcpu!`.
    Variable,
    /// A counter that is a variable.
    Counter,
    /// A kernel variable that holds the name of a counter.
    CounterHandle,
    /// A field of the block's extension.
    PcpuField,
    /// A field of the kernel's LWP.
    LwpField,
}

/// One entry of the header's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// The name, with the path of its module.
    pub name: String,
    /// The type as the source has it.
    pub type_name: String,
    /// What kind of thing it is.
    pub kind: Kind,
    /// Bytes of one CPU's copy.
    pub bytes: u64,
    /// A name, an address or an offset: the kind says which.
    #[serde(serialize_with = "crate::hex::number")]
    pub(crate) at: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its address; of something per-CPU, that on the CPU named.
    #[serde(serialize_with = "crate::hex::number")]
    pub address: u64,
    /// Its size, 0 if nobody says.
    pub bytes: u64,
    /// The CPU whose copy it is, `None` for what is not per-CPU.
    pub cpu: Option<u32>,
}

impl Kpcpu {
    /// Gives the address that a name has: a per-CPU variable's on the handle's current CPU, as
    /// [`dpcpu_setcpu`](Self::dpcpu_setcpu) set it, or a symbol's. FreeBSD: `kvm_nlist`, which answers at the time of the call
    /// too: an address that was found before a change of the CPU stays that of the old one.
    ///
    /// A name may be given whole (`kernel::net::PACKETS`) or by as many of its last parts as make it unique.
    ///
    /// # Errors
    ///
    /// The name is not there, is ambiguous, or the current CPU is not present.
    #[doc(alias = "kvm_nlist")]
    #[doc(alias = "kvm_nlist2")]
    pub fn nlist(&self, name: &str) -> Result<Found> {
        self.consistent(|this| this.find(name))
    }

    fn find(&self, name: &str) -> Result<Found> {
        let per_cpu = |kind| matches!(kind, Kind::Variable | Kind::Counter);
        if let Some(found) = self.descriptor(name, per_cpu)? {
            return self.on_current_cpu(found.at, found.bytes);
        }
        let symbol = self
            .kernel()
            .symbol(name)
            .ok_or_else(|| Error::NoName(name.into()))?;
        let address = symbol.address.wrapping_add(self.bias());
        if self.header()?.is_template(address) {
            return self.on_current_cpu(address, symbol.bytes);
        }
        Ok(Found {
            address,
            bytes: symbol.bytes,
            cpu: None,
        })
    }

    /// The table of what the kernel describes, in its order.
    ///
    /// # Errors
    ///
    /// If the table cannot be read.
    pub fn table(&self) -> Result<Vec<Descriptor>> {
        self.consistent(|this| Ok(this.descriptors()?.to_vec()))
    }

    fn on_current_cpu(&self, name: u64, bytes: u64) -> Result<Found> {
        Ok(Found {
            address: self.on_cpu(name, bytes, self.current_cpu)?,
            bytes,
            cpu: Some(self.current_cpu),
        })
    }

    /// The one descriptor of that name and kind, `None` if there is none.
    pub(crate) fn descriptor(
        &self,
        name: &str,
        is_wanted: impl Fn(Kind) -> bool,
    ) -> Result<Option<Descriptor>> {
        let table = self.descriptors()?;
        let wanted = || table.iter().filter(|d| is_wanted(d.kind));
        if let Some(exact) = wanted().find(|d| d.name == name) {
            return Ok(Some(exact.clone()));
        }
        let is_tail = |whole: &str| {
            let rest = whole.strip_suffix(name);
            rest.is_some_and(|rest| rest.ends_with("::")) && !name.is_empty()
        };
        let found: Vec<_> = wanted().filter(|d| is_tail(&d.name)).collect();
        match found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            _ => Err(Error::Ambiguous {
                name: name.into(),
                found: found
                    .iter()
                    .map(|d| d.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    pub(crate) fn read_descriptors(&self) -> Result<Vec<Descriptor>> {
        let header = self.header()?;
        let bytes = header.descriptors_stop.wrapping_sub(header.descriptors);
        let table = self.read_vec("the table of descriptors", header.descriptors, bytes)?;
        let entry_bytes = header.descriptor_bytes.max(1) as usize;
        let mut descriptors = Vec::new();
        for entry in table.chunks_exact(entry_bytes) {
            let fields = Fields(entry);
            let kind = match fields.u32(48) {
                1 => Kind::Variable,
                2 => Kind::Counter,
                3 => Kind::CounterHandle,
                5 => Kind::PcpuField,
                6 => Kind::LwpField,
                // A later version's.
                _ => continue,
            };
            let text = |what, at| {
                let text: Text = fields.text(at);
                self.read_text(what, text)
            };
            descriptors.push(Descriptor {
                name: text("a descriptor's name", 0)?,
                type_name: text("a descriptor's type", 16)?,
                kind,
                at: fields.u64(32),
                bytes: fields.u64(40),
            });
        }
        Ok(descriptors)
    }
}
