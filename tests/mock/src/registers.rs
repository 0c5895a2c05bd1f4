//! The register file.

use crate::component::{self, SSE, X87};
use crate::model::Model;

/// `MXCSR` after a reset. Intel SDM, volume 1, "MXCSR Control and Status Register".
pub const MXCSR_INITIAL: u32 = 0x1f80;
/// The x87 control word after FNINIT. Intel SDM, volume 2A, "FINIT/FNINIT".
pub const FCW_INITIAL: u16 = 0x037f;
/// `FSW`: an unmasked exception is pending. Intel SDM, volume 1, "x87 FPU Status Register".
pub const FSW_ES: u16 = 1 << 7;
/// `FSW`: busy, a copy of `ES`.
pub const FSW_BUSY: u16 = 1 << 15;

/// x87, and MMX in its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X87Registers {
    /// The control word.
    pub fcw: u16,
    /// The status word, with the top of the stack.
    pub fsw: u16,
    /// The tags, abridged: bit n says that physical register n is not empty.
    pub occupied: u8,
    /// The last instruction's opcode.
    pub fop: u16,
    /// Its address.
    pub fip: u64,
    /// Its operand's.
    pub fdp: u64,
    /// The physical registers, 80 bits each: ST(i) is the one at TOP + i.
    pub physical: [[u8; 10]; 8],
}

impl X87Registers {
    /// The state of FNINIT, with empty registers that are zero besides.
    pub const INITIAL: Self = Self {
        fcw: FCW_INITIAL,
        fsw: 0,
        occupied: 0,
        fop: 0,
        fip: 0,
        fdp: 0,
        physical: [[0; 10]; 8],
    };

    /// Is an unmasked exception pending?
    pub const fn is_pending(&self) -> bool {
        self.fsw & FSW_ES != 0
    }

    fn top(&self) -> usize {
        usize::from(self.fsw >> 11 & 7)
    }

    /// FNINIT: control, status, tags and pointers; the registers keep what they hold. Intel SDM, volume 2A, "FINIT/FNINIT".
    pub(crate) fn fninit(&mut self) {
        *self = Self {
            physical: self.physical,
            ..Self::INITIAL
        };
    }

    /// Bytes 0 to 23 and 32 to 159 of the legacy region. Intel SDM, volume 1, "x87 State". The bytes behind each register's
    /// ten are written as zeros.
    pub(crate) fn to_bytes(&self) -> ([u8; 24], [u8; 128]) {
        let mut control = [0; 24];
        control[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        control[2..4].copy_from_slice(&self.fsw.to_le_bytes());
        control[4] = self.occupied;
        control[6..8].copy_from_slice(&self.fop.to_le_bytes());
        control[8..16].copy_from_slice(&self.fip.to_le_bytes());
        control[16..24].copy_from_slice(&self.fdp.to_le_bytes());
        let mut stack = [0; 128];
        for (st, bytes) in stack.chunks_exact_mut(16).enumerate() {
            bytes[..10].copy_from_slice(&self.physical[(self.top() + st) % 8]);
        }
        (control, stack)
    }

    /// The reverse. Reserved bits of `FCW` and `FOP` are not kept; `ES` and `B` follow the exceptions and their masks. AMD APM,
    /// volume 1, "x87 Status Word Register (FSW)", and as this test's hosts do it.
    pub fn from_image(control: &[u8; 24], stack: &[u8; 128]) -> Self {
        let word = |at: usize| u16::from_le_bytes([control[at], control[at + 1]]);
        let fcw = word(0) & 0x1f3f | 0x40;
        let mut fsw = word(2) & !(FSW_ES | FSW_BUSY);
        if fsw & !fcw & 0x3f != 0 {
            fsw |= FSW_ES | FSW_BUSY;
        }
        let mut registers = Self {
            fcw,
            fsw,
            occupied: control[4],
            fop: word(6) & 0x7ff,
            fip: long(&control[8..16]),
            fdp: long(&control[16..24]),
            physical: [[0; 10]; 8],
        };
        let top = registers.top();
        for (st, bytes) in stack.chunks_exact(16).enumerate() {
            registers.physical[(top + st) % 8].copy_from_slice(&bytes[..10]);
        }
        registers
    }
}

/// Eight bytes as a number.
pub(crate) fn long(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Everything that the XSAVE feature set can move, of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Component 0.
    pub x87: X87Registers,
    /// Component 1: XMM0 to XMM15.
    pub xmm: [u8; 256],
    /// Of component 1 too, but with rules of its own.
    pub mxcsr: u32,
    /// Components 2 and up, by number, as they lie in an area.
    extended: Vec<(u32, Vec<u8>)>,
}

impl Registers {
    /// All of a model's registers in their initial state. Intel SDM, volume 1, "Processor Tracking of XSAVE-Managed State".
    pub fn initial(model: &Model) -> Self {
        Self {
            x87: X87Registers::INITIAL,
            xmm: [0; 256],
            mxcsr: MXCSR_INITIAL,
            extended: model
                .components
                .iter()
                .map(|component| (component.number, vec![0; component.bytes]))
                .collect(),
        }
    }

    /// The contents of a component from 2 up.
    ///
    /// # Panics
    ///
    /// If the model does not have it.
    pub fn extended(&self, number: u32) -> &[u8] {
        let found = self.extended.iter().find(|(n, _)| *n == number);
        &found.expect("a component of this model").1
    }

    /// The same, to be changed.
    ///
    /// # Panics
    ///
    /// If the model does not have it.
    pub fn extended_mut(&mut self, number: u32) -> &mut [u8] {
        let found = self.extended.iter_mut().find(|(n, _)| *n == number);
        &mut found.expect("a component of this model").1
    }

    /// The bitmap of the components that do not hold their initial state. `MXCSR` does not count.
    pub fn not_initial(&self) -> u64 {
        let mut bits = 0;
        if self.x87 != X87Registers::INITIAL {
            bits |= X87;
        }
        if self.xmm != [0; 256] {
            bits |= SSE;
        }
        self.extended
            .iter()
            .filter(|(_, bytes)| bytes.iter().fold(0, |all, byte| all | byte) != 0)
            .fold(bits, |bits, (number, _)| bits | 1 << number)
    }

    /// The bitmap of the components that are not the same in `other`; `MXCSR` counts as SSE.
    pub fn differences(&self, other: &Self) -> u64 {
        let mut bits = 0;
        if self.x87 != other.x87 {
            bits |= X87;
        }
        if self.xmm != other.xmm || self.mxcsr != other.mxcsr {
            bits |= SSE;
        }
        let pairs = self.extended.iter().zip(&other.extended);
        pairs
            .filter(|(mine, theirs)| mine != theirs)
            .fold(bits, |bits, ((number, _), _)| bits | 1 << number)
    }

    /// Gives the components of a bitmap their initial state; `MXCSR` is left alone.
    pub(crate) fn initialise(&mut self, bitmap: u64) {
        for number in component::numbers(bitmap) {
            match number {
                0 => self.x87 = X87Registers::INITIAL,
                1 => self.xmm = [0; 256],
                _ => self.extended_mut(number).fill(0),
            }
        }
    }
}
