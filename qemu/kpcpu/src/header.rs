//! The kernel's header, decoded. Its layout stands in `pcu9::percpu::header`, byte by byte; every version that ever was is read
//! for ever, by the number in the header itself, so nothing here uses the types of the `pcu9` that the reader was built with.

use thiserror::Error;

/// What a header begins with.
pub(crate) const MAGIC: &[u8; 16] = b"\x7fpcu9 percpu hdr";
/// The size of a header of version 1.
pub(crate) const BYTES: usize = 384;
/// Name and type of the note by which it travels in a dump: `pcu9::percpu::header::HeaderNote`.
pub(crate) const NOTE: (&[u8], u32) = (b"pcu9", 2);
/// What an offset is that the kernel does not give.
const ABSENT: u32 = u32::MAX;

/// Bytes that are not a header.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// They do not begin with the magic.
    #[error("no header there")]
    Magic,
    /// It is of a version, a byte order, a machine or a size that this reader does not know.
    #[error("the header's {field} is {found:#x}, and this reader knows {known:#x} only")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it says.
        found: u64,
        /// What is known.
        known: u64,
    },
    /// A field says what cannot be.
    #[error("the header is damaged: {field} is {found:#x}")]
    Damaged {
        /// Which field.
        field: &'static str,
        /// What it says.
        found: u64,
    },
}

/// A stretch of text in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
}

/// Where the fields of `CpuPcu` and `LwpPcu` are: `pcu9::pcu::Layout`, 18 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PcuLayout {
    pub(crate) n_units: u32,
    pub(crate) n_counters: u32,
    pub(crate) cpu_attention: u32,
    pub(crate) cpu_section_depth: u32,
    pub(crate) cpu_units: u32,
    pub(crate) unit_bytes: u32,
    pub(crate) unit_owner: u32,
    pub(crate) unit_tag: u32,
    pub(crate) unit_residue: u32,
    pub(crate) unit_counters: u32,
    pub(crate) lwp_words: u32,
}

/// Where a kernel keeps things in its LWPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LwpLayout {
    pub(crate) list: Option<u64>,
    pub(crate) next: Option<u32>,
    pub(crate) pcu: Option<u32>,
    pub(crate) number: Option<u32>,
    pub(crate) bytes: u32,
    pub(crate) name: Option<(u32, u32)>,
}

/// Where an LWP's area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AreaPlace {
    Unknown,
    Pointer(u32),
    Inside(u32),
}

/// What a saved state looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaFormat {
    /// The 512 bytes of FXSAVE.
    Fxsave,
    /// XSAVE's standard format.
    Standard,
    /// XSAVE's compacted format.
    Compacted,
}

/// Where the FPU's areas are, and of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FpuLayout {
    pub(crate) unit: u32,
    pub(crate) place: AreaPlace,
    pub(crate) format: Option<AreaFormat>,
    pub(crate) area_bytes: u32,
    pub(crate) xcr0: u64,
}

/// A header of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) address: u64,
    pub(crate) generation: u64,
    pub(crate) build_id: Vec<u8>,
    pub(crate) max_cpus: u32,
    pub(crate) groups: u64,
    pub(crate) n_groups: u32,
    pub(crate) group_bytes: u32,
    pub(crate) template_start: u64,
    pub(crate) template_stop: u64,
    pub(crate) stride: u64,
    pub(crate) zpcpu_start: u64,
    pub(crate) pcpu: u64,
    pub(crate) pcpu_bytes: u32,
    pub(crate) extension: u32,
    pub(crate) extension_bytes: u32,
    pub(crate) descriptor_bytes: u32,
    pub(crate) descriptors: u64,
    pub(crate) descriptors_stop: u64,
    pub(crate) pcu: PcuLayout,
    pub(crate) counter_names: Text,
    pub(crate) unit_names: Text,
    pub(crate) lwp: LwpLayout,
    pub(crate) fpu: FpuLayout,
    pub(crate) root_table: u64,
    pub(crate) levels: u32,
    pub(crate) image_bias: u64,
}

/// Reads little-endian numbers out of a header or a table's entry; what lies beyond the end reads as 0.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        let slice = at.checked_add(N).and_then(|end| self.0.get(at..end));
        slice.and_then(|s| s.try_into().ok()).unwrap_or([0; N])
    }

    pub(crate) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn text(self, at: usize) -> Text {
        Text {
            at: self.u64(at),
            bytes: self.u64(at + 8),
        }
    }

    fn offset(self, at: usize) -> Option<u32> {
        Some(self.u32(at)).filter(|&offset| offset != ABSENT)
    }
}

impl Header {
    /// Decodes a header, and refuses numbers that no kernel writes, so that no loop over them is long.
    pub(crate) fn decode(bytes: &[u8; BYTES]) -> Result<Self, HeaderError> {
        let fields = Fields(bytes);
        if !bytes.starts_with(MAGIC) {
            return Err(HeaderError::Magic);
        }
        for (field, at, known) in [
            ("version", 16, 1),
            ("header_bytes", 20, 384),
            ("byte_order", 24, 0x0102_0304),
            ("machine", 28, u32::from(object::elf::EM_X86_64)),
        ] {
            let found = fields.u32(at);
            if found != known {
                return Err(HeaderError::Unknown {
                    field,
                    found: found.into(),
                    known: known.into(),
                });
            }
        }
        let header = Self {
            address: fields.u64(32),
            generation: fields.u64(40),
            build_id: bytes[52..84][..fields.u32(48).min(32) as usize].to_vec(),
            max_cpus: fields.u32(84),
            groups: fields.u64(88),
            n_groups: fields.u32(96),
            group_bytes: fields.u32(100),
            template_start: fields.u64(104),
            template_stop: fields.u64(112),
            stride: fields.u64(120),
            zpcpu_start: fields.u64(128),
            pcpu: fields.u64(136),
            pcpu_bytes: fields.u32(144),
            extension: fields.u32(148),
            extension_bytes: fields.u32(152),
            descriptor_bytes: fields.u32(156),
            descriptors: fields.u64(160),
            descriptors_stop: fields.u64(168),
            pcu: PcuLayout {
                n_units: fields.u32(176),
                n_counters: fields.u32(180),
                cpu_attention: fields.u32(188),
                cpu_section_depth: fields.u32(192),
                cpu_units: fields.u32(204),
                unit_bytes: fields.u32(208),
                unit_owner: fields.u32(212),
                unit_tag: fields.u32(216),
                unit_residue: fields.u32(220),
                unit_counters: fields.u32(224),
                lwp_words: fields.u32(244),
            },
            counter_names: fields.text(248),
            unit_names: fields.text(264),
            lwp: LwpLayout {
                list: Some(fields.u64(280)).filter(|&list| list != 0),
                next: fields.offset(288),
                pcu: fields.offset(292),
                number: fields.offset(296),
                bytes: fields.u32(300),
                name: fields.offset(304).map(|at| (at, fields.u32(308))),
            },
            fpu: FpuLayout {
                unit: fields.u32(312),
                place: match (fields.u32(316), fields.offset(320)) {
                    (1, Some(offset)) => AreaPlace::Pointer(offset),
                    (2, Some(offset)) => AreaPlace::Inside(offset),
                    _ => AreaPlace::Unknown,
                },
                format: match fields.u32(324) {
                    1 => Some(AreaFormat::Fxsave),
                    2 => Some(AreaFormat::Standard),
                    3 => Some(AreaFormat::Compacted),
                    _ => None,
                },
                area_bytes: fields.u32(328),
                xcr0: fields.u64(336),
            },
            root_table: fields.u64(344),
            levels: fields.u32(352),
            image_bias: fields.u64(376),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), HeaderError> {
        // A table of CPU ids has at most 2^14 places, a table of units 32, and nothing per-CPU is a gigabyte.
        let limits = [
            ("max_cpus", u64::from(self.max_cpus), 1 << 14),
            ("n_groups", u64::from(self.n_groups), 1 << 8),
            ("group_bytes", u64::from(self.group_bytes), 1 << 16),
            ("pcpu_bytes", u64::from(self.pcpu_bytes), 1 << 16),
            (
                "descriptor_bytes",
                u64::from(self.descriptor_bytes),
                1 << 12,
            ),
            ("n_units", u64::from(self.pcu.n_units), 32),
            ("n_counters", u64::from(self.pcu.n_counters), 1 << 10),
            ("unit_bytes", u64::from(self.pcu.unit_bytes), 1 << 16),
            ("stride", self.stride, 1 << 32),
            ("counter_names", self.counter_names.bytes, 1 << 16),
            ("unit_names", self.unit_names.bytes, 1 << 16),
            ("lwp.bytes", u64::from(self.lwp.bytes), 1 << 24),
            ("fpu.area_bytes", u64::from(self.fpu.area_bytes), 1 << 20),
            (
                "descriptors",
                self.descriptors_stop.wrapping_sub(self.descriptors),
                1 << 24,
            ),
        ];
        match limits.iter().find(|(_, found, most)| found > most) {
            Some(&(field, found, _)) => Err(HeaderError::Damaged { field, found }),
            None => Ok(()),
        }
    }
}
