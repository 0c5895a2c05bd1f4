//! The state in which a kernel gives the FPU to a program, and to a signal's handler.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::held::{CONTROL_INITIAL, Lost, MXCSR_INITIAL};

/// FXSAVE's image (Intel SDM, volume 1, "FXSAVE Area"), as 32-bit words: the FPU at a first instruction, before Rust code ran.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct First([AtomicU32; 128]);

impl First {
    /// Makes one that nothing was stored to.
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 128])
    }

    fn word(&self, offset: usize) -> u64 {
        u64::from(self.0[offset / 4].load(Ordering::Relaxed))
    }

    /// Compares with the initial state.
    ///
    /// # Errors
    ///
    /// The first register that differs.
    pub fn check(&self) -> Result<(), Lost> {
        let same = |register, number, expected, seen| {
            (expected == seen).then_some(()).ok_or(Lost {
                register,
                number,
                expected,
                seen,
            })
        };
        let in_use = self.word(4) & 0xFF;
        let [control, mxcsr] = [CONTROL_INITIAL, MXCSR_INITIAL].map(|word| [u64::from(word), 0]);
        same("x87 control and status", None, control, [self.word(0), 0])?;
        same("x87 registers in use", None, [0; 2], [in_use, 0])?;
        same("MXCSR", None, mxcsr, [self.word(24), 0])?;
        (0..16).try_for_each(|number| {
            let half = |at| self.word(at) | self.word(at + 4) << 32;
            let at = 160 + 16 * number;
            same("XMM", Some(number), [0; 2], [half(at), half(at + 8)])
        })
    }
}

impl Default for First {
    fn default() -> Self {
        Self::new()
    }
}
