//! QEMU's map of the guest's physical memory, from `info mtree -f`: a command for people, and the only one that tells which address
//! is where in which block. Its form is that of QEMU 2.10 (2017) and every one since; what differs is refused, not guessed.

/// A stretch of the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where it begins in the guest.
    pub(super) physical: u64,
    pub(super) bytes: u64,
    /// The name of QEMU's block.
    pub(super) block: String,
    /// Where it begins in the block.
    pub(super) offset: u64,
}

impl Stretch {
    /// Where it ends in the block. Such an end was checked to be a number.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// Reads the memory of the address space `memory`, which the CPUs see; sorted by address. An error is the line that is not
/// understood, or what is missing.
pub(super) fn parse(text: &str) -> Result<Vec<Stretch>, String> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let views = text.split("FlatView #").skip(1);
    let is_memory = |view: &&str| view.lines().any(|l| l.starts_with(" AS \"memory\","));
    let view = { views }
        .find(is_memory)
        .ok_or("it has no address space `memory`")?;
    for line in view.lines() {
        // `  0000000000100000-00000000bfffffff (prio 0, ram): ram0 @0000000000100000`
        let Some((range, rest)) = line.trim().split_once(" (prio ") else {
            continue;
        };
        let not_understood = || format!("`{}`", line.trim());
        let (kind, name) = rest.split_once("): ").ok_or_else(not_understood)?;
        if kind.ends_with(", ram") {
            stretches.push(stretch(range, name).ok_or_else(not_understood)?);
        }
    }
    stretches.sort_by_key(|stretch| stretch.physical);
    let overlap = stretches
        .windows(2)
        .find(|pair| pair[0].physical + pair[0].bytes > pair[1].physical);
    if let Some([first, second]) = overlap {
        let (first, second) = (first.physical, second.physical);
        return Err(format!("what begins at {first:#x} covers {second:#x}"));
    }
    if stretches.is_empty() {
        return Err("it has no memory".into());
    }
    Ok(stretches)
}

/// Reads a line of memory: its range, and the block's name with the offset in it.
fn stretch(range: &str, name: &str) -> Option<Stretch> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (first, last) = range.split_once('-')?;
    let (physical, last) = (hex(first)?, hex(last)?);
    let (block, offset) = match name.split_once(" @") {
        Some((block, rest)) => (block, hex(rest.split(' ').next()?)?),
        None => (name, 0),
    };
    // An accelerator adds its name to what it maps.
    let block = block.strip_suffix(" KVM").unwrap_or(block);
    let bytes = last.checked_sub(physical)?.checked_add(1)?;
    physical.checked_add(bytes)?;
    offset.checked_add(bytes)?;
    Some(Stretch {
        physical,
        bytes,
        block: block.into(),
        offset,
    })
}

/// Finds the stretch that has `address`, and how far into it that is.
pub(super) fn find(stretches: &[Stretch], address: u64) -> Option<(&Stretch, u64)> {
    let after = stretches.partition_point(|stretch| stretch.physical <= address);
    let stretch = stretches.get(after.checked_sub(1)?)?;
    let skip = address - stretch.physical;
    (skip < stretch.bytes).then_some((stretch, skip))
}

#[cfg(test)]
mod tests {
    use super::{Stretch, find, parse};

    /// As QEMU 7.2 prints it for `-m 5G -machine pc`, without the devices' address spaces.
    const PC_5_GIB: &str = "\
FlatView #0\r
 AS \"I/O\", root: io\r
 Root memory region: io\r
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\r
\r
FlatView #1\r
 AS \"cpu-smm-0\", root: memory\r
 Root memory region: memory\r
  0000000000000000-000000000009ffff (prio 0, ram): other\r
\r
FlatView #2\r
 AS \"memory\", root: system\r
 AS \"cpu-memory-0\", root: system\r
 Root memory region: system\r
  0000000000000000-000000000009ffff (prio 0, ram): ram0\r
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\r
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\r
  0000000000100000-00000000bfffffff (prio 0, ram): ram0 @0000000000100000 KVM\r
  00000000fee00000-00000000fee00fff (prio 4096, i/o): apic-msi\r
  0000000100000000-000000017fffffff (prio 0, ram): ram0 @00000000c0000000\r
\r
";

    #[test]
    fn memory_above_the_hole_is_elsewhere_in_the_block() {
        let stretches = parse(PC_5_GIB).expect("a map");
        let ram = |physical, bytes, offset| Stretch {
            physical,
            bytes,
            block: "ram0".into(),
            offset,
        };
        assert_eq!(
            stretches,
            [
                ram(0, 0xa_0000, 0),
                ram(0x10_0000, 0xbff0_0000, 0x10_0000),
                ram(1 << 32, 2 << 30, 0xc000_0000),
            ]
        );
        let at = |address| find(&stretches, address).map(|(stretch, skip)| stretch.offset + skip);
        assert_eq!(at(0x9_ffff), Some(0x9_ffff));
        assert_eq!(at(0xa_0000), None);
        assert_eq!(at(0xc000_0000), None);
        assert_eq!(at(0x1_0000_0005), Some(0xc000_0005));
        assert_eq!(at(0x1_8000_0000), None);
    }

    #[test]
    fn what_is_not_understood_is_told_and_not_guessed() {
        let says = |text: &str| parse(text).expect_err("refused");
        assert!(says("").contains("no address space `memory`"));
        assert!(says("unknown command: 'info mtree'").contains("no address space"));
        let with = |line: &str| format!("FlatView #0\n AS \"memory\", root: system\n  {line}\n");
        assert!(says(&with("")).contains("no memory"));
        for line in [
            "0000-zzzz (prio 0, ram): ram0",
            "5000-4000 (prio 0, ram): ram0",
            "0000-ffff (prio 0, ram) ram0",
            "0000-ffff (prio 0, ram): ram0 @x",
            "0000-ffff (prio 0, ram): ram0 @ffffffffffffffff",
            "0000-ffffffffffffffff (prio 0, ram): ram0",
        ] {
            assert_eq!(says(&with(line)), format!("`{line}`"));
        }
        let overlap = with("0-fff (prio 0, ram): a\n  800-8ff (prio 0, ram): b");
        assert!(says(&overlap).contains("0x0 covers 0x800"));
    }
}
