//! The two encodings that the protocol stands on: an LWP's word and a CPU's tag.
//!
//! ```text
//! word   63 ............ 16  15 ...... 2      1       0
//!        serial (48 bits)    CPU + 1, or 0   valid   live
//! tag    63 ............ 16  15 ...... 2      1       0
//!        serial (48 bits)    0               section live
//! ```

use crate::kernel::CpuId;

const LIVE: u64 = 1 << 0;
const VALID: u64 = 1 << 1;
const SECTION: u64 = 1 << 1;
const CPU_SHIFT: u32 = 2;
const CPU_MASK: u64 = (1 << 14) - 1;
const SERIAL_SHIFT: u32 = 16;

/// Is there a state that a load has to bring back? NetBSD: the `valid` argument of `pcu_discard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Memory holds the state, or is about to.
    Valid,
    /// There is none; the next load gives the initial state.
    Invalid,
}

/// A serial: new at each init and restore on a CPU, never used twice there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serial(u64);

impl Serial {
    /// What no tag has that names registers.
    pub(super) const NONE: Self = Self(0);

    /// The serial after this one.
    ///
    /// 2^48 loads at one a microsecond take nine years; running out is asserted in release too, since a serial that comes
    /// back would make a stale link hold.
    #[inline]
    pub(super) fn next(self) -> Self {
        let next = self.0 + 1;
        assert!(
            next >> (64 - SERIAL_SHIFT) == 0,
            "the serials of a CPU ran out"
        );
        Self(next)
    }

    #[inline]
    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline]
    pub(super) const fn raw(self) -> u64 {
        self.0
    }
}

/// Where an LWP's state is, and whether there is one: one value, changed together (I6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    /// Nowhere, with or without a valid image in memory.
    #[inline]
    pub(super) const fn nowhere(validity: Validity) -> Self {
        match validity {
            Validity::Valid => Self(VALID),
            Validity::Invalid => Self(0),
        }
    }

    /// Live on `cpu`: its registers may be newer than memory.
    #[inline]
    pub(super) const fn live(cpu: CpuId, serial: Serial) -> Self {
        Self(LIVE | VALID | ((cpu.index() as u64 + 1) << CPU_SHIFT) | (serial.0 << SERIAL_SHIFT))
    }

    /// Clean on `cpu`: memory is the newest, and its registers equal it as long as the link holds.
    #[inline]
    pub(super) const fn clean(cpu: CpuId, serial: Serial) -> Self {
        Self(Self::live(cpu, serial).0 & !LIVE)
    }

    #[inline]
    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline]
    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    #[inline]
    pub(super) const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    #[inline]
    pub(super) const fn validity(self) -> Validity {
        if self.is_valid() {
            Validity::Valid
        } else {
            Validity::Invalid
        }
    }

    #[inline]
    pub(super) const fn serial(self) -> Serial {
        Serial(self.0 >> SERIAL_SHIFT)
    }

    /// The CPU that the word names, live or clean.
    #[inline]
    pub(super) fn cpu(self) -> Option<CpuId> {
        let field = (self.0 >> CPU_SHIFT) & CPU_MASK;
        u16::try_from(field)
            .ok()
            .and_then(|field| field.checked_sub(1))
            .and_then(CpuId::new)
    }

    /// The CPU whose registers are the newest state, if any are (I4).
    #[inline]
    pub(super) fn live_cpu(self) -> Option<CpuId> {
        if self.is_live() { self.cpu() } else { None }
    }

    /// Does it name a CPU, live or clean?
    #[inline]
    pub(super) const fn is_somewhere(self) -> bool {
        self.0 & CPU_MASK << CPU_SHIFT != 0
    }

    #[inline]
    pub(super) fn is_live_on(self, cpu: CpuId) -> bool {
        self.0 & (LIVE | CPU_MASK << CPU_SHIFT) == LIVE | (cpu.index() as u64 + 1) << CPU_SHIFT
    }

    /// Does the two-way link hold: is this word clean on `cpu`, and do its registers, which `tag` describes, still equal
    /// the LWP's memory?
    #[inline]
    pub(super) fn links(self, cpu: CpuId, tag: Tag) -> bool {
        tag == Tag::clean(tag.serial())
            && tag != Tag::NONE
            && self == Self::clean(cpu, tag.serial())
    }
}

/// What a CPU says of the registers that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u64);

impl Tag {
    /// The registers are nobody's: initial, or what is left of somebody.
    pub(super) const NONE: Self = Self(0);

    /// A kernel section uses the registers.
    pub(super) const SECTION: Self = Self(SECTION);

    /// The owner's live registers.
    #[inline]
    pub(super) const fn live(serial: Serial) -> Self {
        Self(LIVE | (serial.0 << SERIAL_SHIFT))
    }

    /// Registers that equal the memory of the LWP whose word has the serial too.
    #[inline]
    pub(super) const fn clean(serial: Serial) -> Self {
        Self(serial.0 << SERIAL_SHIFT)
    }

    #[inline]
    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline]
    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    /// Is a kernel section the owner?
    #[inline]
    pub(super) const fn is_section(self) -> bool {
        self.0 & SECTION != 0
    }

    #[inline]
    pub(super) const fn serial(self) -> Serial {
        Serial(self.0 >> SERIAL_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::{CPU_MASK, Serial, Tag, Validity, Word};
    use crate::kernel::CpuId;

    const LAST_SERIAL: Serial = Serial((1 << 48) - 1);

    fn cpus() -> [CpuId; 2] {
        [0, CpuId::LIMIT - 1].map(|index| CpuId::new(index).unwrap())
    }

    #[test]
    fn a_cpu_and_a_serial_come_back_out_of_a_word() {
        assert_eq!(
            (u64::from(CpuId::LIMIT), CpuId::new(CpuId::LIMIT)),
            (CPU_MASK, None)
        );
        for (cpu, serial) in cpus().into_iter().zip([Serial(1), LAST_SERIAL]) {
            let live = Word::live(cpu, serial);
            assert!(live.is_live() && live.is_valid());
            assert_eq!((live.cpu(), live.live_cpu()), (Some(cpu), Some(cpu)));
            let clean = Word::clean(cpu, serial);
            assert!(!clean.is_live() && clean.is_valid());
            assert_eq!((clean.cpu(), clean.live_cpu()), (Some(cpu), None));
            assert_eq!(Tag::live(serial).serial(), serial);
            assert_eq!(Tag::clean(serial).serial(), serial);
        }
        for validity in [Validity::Valid, Validity::Invalid] {
            let word = Word::nowhere(validity);
            assert_eq!((word.cpu(), word.validity()), (None, validity));
        }
    }

    #[test]
    fn a_link_holds_for_the_same_cpu_and_serial_of_a_clean_tag_alone() {
        let [cpu, other] = cpus();
        let clean = Tag::clean(Serial(7));
        assert!(Word::clean(cpu, Serial(7)).links(cpu, clean));
        for (word, cpu, tag) in [
            (Word::clean(cpu, Serial(7)), other, clean),
            (Word::clean(cpu, Serial(8)), cpu, clean),
            (Word::clean(cpu, Serial(7)), cpu, Tag::live(Serial(7))),
            (Word::live(cpu, Serial(7)), cpu, clean),
            (Word::nowhere(Validity::Valid), cpu, clean),
            (Word::nowhere(Validity::Valid), cpu, Tag::NONE),
        ] {
            assert!(!word.links(cpu, tag), "{word:?} {cpu:?} {tag:?}");
        }
    }

    #[test]
    #[should_panic(expected = "the serials of a CPU ran out")]
    fn a_serial_never_comes_back() {
        let before = Serial(LAST_SERIAL.0 - 1);
        assert_eq!(before.next(), LAST_SERIAL);
        LAST_SERIAL.next();
    }
}
