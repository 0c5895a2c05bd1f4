//! QEMU's `fw_cfg` device: files that the machine offers to its guest, some of which the guest may write. QEMU, `docs/specs/fw_cfg.rst`.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::instructions::port::Port;

use crate::memory::heap_phys;
use crate::serial::inb;

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
/// The address of a request: the upper half here, the lower one at the next port, which begins the transfer. Big-endian, as
/// everything that the device has.
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;

/// Items that every such device has.
const SIGNATURE: u16 = 0x0000;
const FEATURES: u16 = 0x0001;
const DIRECTORY: u16 = 0x0019;
const FEATURE_DMA: u32 = 1 << 1;

const CONTROL_ERROR: u32 = 1 << 0;
const CONTROL_SELECT: u32 = 1 << 3;
const CONTROL_WRITE: u32 = 1 << 4;
/// How often a transfer is looked at: QEMU makes it within the write that begins it.
const POLLS: u32 = 1_000_000;
/// More files than QEMU offers.
const FILES_MAX: u32 = 256;

/// The device, seen to be there and to write.
#[derive(Debug)]
pub(super) struct FwCfg(());

/// A file of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    key: u16,
    pub(super) bytes: u32,
}

/// A transfer: all big-endian.
#[repr(C)]
struct Request {
    control: AtomicU32,
    length: u32,
    address: u64,
}

impl FwCfg {
    /// Looks whether the machine has the device, and whether it can be written to. On other machines nobody answers at its ports.
    pub(super) fn detect() -> Option<Self> {
        select(SIGNATURE);
        if core::array::from_fn(|_| inb(DATA)) != *b"QEMU" {
            return None;
        }
        select(FEATURES);
        let features = u32::from_le_bytes(core::array::from_fn(|_| inb(DATA)));
        (features & FEATURE_DMA != 0).then_some(Self(()))
    }

    /// Finds a file by its name.
    #[expect(clippy::unused_self, reason = "proves that the device is there")]
    pub(super) fn find(&self, name: &str) -> Option<File> {
        select(DIRECTORY);
        let n_files = u32::from_be_bytes(core::array::from_fn(|_| inb(DATA)));
        (0..n_files.min(FILES_MAX)).find_map(|_| {
            let bytes = u32::from_be_bytes(core::array::from_fn(|_| inb(DATA)));
            let key = u16::from_be_bytes(core::array::from_fn(|_| inb(DATA)));
            let rest: [u8; 58] = core::array::from_fn(|_| inb(DATA));
            let found = rest[2..].split(|&byte| byte == 0).next()?;
            (found == name.as_bytes()).then_some(File { key, bytes })
        })
    }

    /// Writes a file from its begin on; false if the device refuses.
    #[expect(clippy::unused_self, reason = "proves that the device is there")]
    pub(super) fn write(&self, file: File, content: Box<[u8]>) -> bool {
        let request = Box::new(Request {
            control: AtomicU32::new(
                (u32::from(file.key) << 16 | CONTROL_SELECT | CONTROL_WRITE).to_be(),
            ),
            length: (content.len() as u32).to_be(),
            address: heap_phys(content.as_ptr()).to_be(),
        });
        let at = heap_phys(&raw const *request);
        out(DMA_HIGH, ((at >> 32) as u32).to_be());
        out(DMA_LOW, (at as u32).to_be());
        let control = || u32::from_be(request.control.load(Ordering::Acquire));
        let is_done = (0..POLLS).any(|_| control() & !CONTROL_ERROR == 0);
        if !is_done {
            // The device may still come to it.
            Box::leak(request);
            Box::leak(content);
            return false;
        }
        control() & CONTROL_ERROR == 0
    }
}

/// Makes `key` the item whose bytes follow.
fn select(key: u16) {
    // SAFETY: no other device has this port on a PC, and without one the write is lost.
    unsafe { Port::new(SELECTOR).write(key) };
}

fn out(port: u16, value: u32) {
    // SAFETY: called for the two ports of the device alone, which was seen; the transfer that begins reads and writes the request
    // and what it names, both of which the caller has for as long as it takes.
    unsafe { Port::new(port).write(value) };
}
