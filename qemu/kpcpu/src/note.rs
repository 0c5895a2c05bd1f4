//! The header as it travels: a guest that has QEMU's vmcoreinfo device hands it a note, and every dump has it.

use crate::dump::Dump;
use crate::header::{self, Header};
use crate::paging::{AddressSpace, Levels};

/// Where the header is, as its copy in a dump's notes says.
pub(crate) struct Travelled {
    /// Where the kernel sees it.
    pub(crate) address: u64,
    pub(crate) physical: u64,
}

impl Travelled {
    /// Finds the note in a dump.
    pub(crate) fn find(dump: &Dump) -> Option<Self> {
        let notes = dump.guest_notes().iter();
        let mut ours = notes.filter(|note| (&note.name[..], note.kind) == header::NOTE);
        let bytes = ours.find_map(|note| <&[u8; header::BYTES]>::try_from(&note.desc[..]).ok())?;
        let header = Header::decode(bytes).ok()?;
        let levels = match header.levels {
            5 => Levels::Five,
            _ => Levels::Four,
        };
        let space = AddressSpace::new(header.root_table, levels);
        let mapping = space.translate(dump, header.address);
        // A kernel that names no page table may have said how far its image is from where it is loaded.
        let by_bias = header.address.wrapping_sub(header.image_bias);
        Some(Self {
            address: header.address,
            physical: mapping.map_or(by_bias, |mapping| mapping.physical),
        })
    }
}
