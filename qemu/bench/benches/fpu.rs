//! `cargo bench`: what a save, a restore and a wipe of the FPU's registers cost on this machine, by instruction and by what is
//! in use: bytes written, and cycles of the time stamp counter beside those of a plain XSAVE and XRSTOR of everything.
//!
//! The instructions are unprivileged, all but XSAVES and XRSTORS, which are named and not run. Each figure is the median of many
//! samples of many rounds, each of them begun by a restore of the same image, whose cost is taken off.
//!
//! Wipes are measured alone, between fences, and in a row, as the processor overlaps them.
//!
//! Fails if, in a row, the unit's cheap wipe, where x87 is not in use, takes more than a quarter of an XRSTOR of the initial image.

use std::process::ExitCode;

#[cfg(not(all(target_arch = "x86_64", not(target_os = "none"))))]
fn main() -> ExitCode {
    eprintln!("NOT RUN: an x86-64 host has the instructions that are measured");
    ExitCode::SUCCESS
}

#[cfg(all(target_arch = "x86_64", not(target_os = "none")))]
fn main() -> ExitCode {
    native::main()
}

#[cfg(all(target_arch = "x86_64", not(target_os = "none")))]
mod native {
    use std::arch::asm;
    use std::fs;
    use std::process::ExitCode;
    use std::ptr::NonNull;

    use pcu9::pcu::PcuOps;
    use pcu9::x86_64::fpu::{self, Fpu, FpuArea, Refused, SaveInstruction};
    use pcu9_runner::render_table;

    const SAMPLES: usize = 301;
    const ROUNDS: u64 = 32;
    /// The bound of the cheap wipe: its part of an XRSTOR of the initial image.
    const WIPE_LIMIT: f64 = 0.25;

    /// An area for any format; XSAVE areas of today are below 3 KiB without AMX.
    #[repr(C, align(64))]
    struct Area([u8; 4096]);

    // SAFETY: long and aligned enough; the wipe, which alone is measured through the unit, asks for no area.
    unsafe impl FpuArea for Area {
        unsafe fn area(_: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
            Err(Refused)
        }
    }

    impl Area {
        const ZERO: Self = Self([0; 4096]);

        /// An image in the standard format with these components in use.
        fn image(components: u64) -> Self {
            let mut area = Self([0x3c; 4096]);
            area.0[..512].fill(0);
            area.0[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
            area.0[4] = 0xff;
            area.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
            area.0[32..416].fill(0x3c);
            area.0[512..576].fill(0);
            area.0[512..520].copy_from_slice(&components.to_le_bytes());
            area
        }
    }

    /// Rounds of: load the image at R12, execute the text, which finds the area in RDI and the mask in EDX:EAX. Gives the cycles of
    /// all rounds: the time stamp counter itself goes in steps of some tens.
    macro_rules! rounds {
        ($text:literal, $($rest:tt)+) => {
            run!("mov eax, r14d\nxor edx, edx\nxrstor64 [r12]\nlfence", $text, "lfence", $($rest)+)
        };
    }

    /// Rounds of the text alone, the image loaded once before: the processor overlaps them as it can.
    macro_rules! streak {
        ($text:literal, $($rest:tt)+) => { run!("", $text, "", $($rest)+) };
    }

    macro_rules! run {
        (
            $begin:literal, $text:literal, $end:literal,
            $image:expr, $area:expr, $mask:expr $(, $name:ident = sym $function:path)?
        ) => {{
            let (image, area): (&Area, &mut Area) = ($image, $area);
            let (begin, end): (u64, u64);
            // SAFETY: the image is one that XRSTOR takes, and the area is long enough. Compiled code has no live register beside
            // the operands; MXCSR and the x87 control word are put back. The text may call: the stack is aligned.
            unsafe {
                asm!(
                    "mov r15, rsp", "and rsp, -64", "sub rsp, 64",
                    "mov dword ptr [rsp], {rounds}", "mov [rsp + 8], rdi",
                    "mov eax, r14d", "xor edx, edx", "xrstor64 [r12]",
                    "lfence", "rdtsc", "lfence", "shl rdx, 32", "or rdx, rax", "mov r13, rdx",
                    "2:", $begin,
                    "mov rdi, [rsp + 8]", "mov eax, r14d", "xor edx, edx",
                    $text,
                    $end, "dec dword ptr [rsp]", "jnz 2b",
                    "lfence", "rdtsc", "shl rdx, 32", "or rdx, rax", "mov r14, rdx",
                    "mov dword ptr [rsp], 0x1f80", "ldmxcsr [rsp]", "fninit", "mov rsp, r15",
                    $($name = sym $function,)?
                    rounds = const ROUNDS,
                    in("rdi") &raw mut *area, in("r12") &raw const *image,
                    out("r13") begin, inout("r14") $mask => end, out("r15") _,
                    clobber_abi("C"),
                );
            }
            end - begin
        }};
    }

    /// What one round of `work` takes beyond one of `base`: the middle of many samples, each with one of `base` beside it, since a
    /// shared machine gets faster and slower.
    fn beyond(mut base: impl FnMut() -> u64, mut work: impl FnMut() -> u64) -> u64 {
        let mut samples: Vec<u64> = (0..SAMPLES)
            .map(|_| {
                let base = base();
                work().saturating_sub(base) / ROUNDS
            })
            .collect();
        *samples.select_nth_unstable(SAMPLES / 2).1
    }

    /// What `work` takes on `area` beyond the restore of the image that each round begins with.
    fn cycles(
        image: &Area,
        area: &mut Area,
        mask: u64,
        mut work: impl FnMut(&mut Area) -> u64,
    ) -> u64 {
        let mut unused = Box::new(Area::ZERO);
        beyond(|| rounds!("", image, &mut unused, mask), || work(area))
    }

    fn save(instruction: SaveInstruction, image: &Area, area: &mut Area, mask: u64) -> u64 {
        match instruction {
            SaveInstruction::Fxsave => rounds!("fxsave64 [rdi]", image, area, mask),
            SaveInstruction::Xsave => rounds!("xsave64 [rdi]", image, area, mask),
            SaveInstruction::Xsaveopt => rounds!("xsaveopt64 [rdi]", image, area, mask),
            SaveInstruction::Xsavec => rounds!("xsavec64 [rdi]", image, area, mask),
            other => unreachable!("{other} is not measured"),
        }
    }

    fn restore(instruction: SaveInstruction, image: &Area, area: &mut Area, mask: u64) -> u64 {
        if instruction == SaveInstruction::Fxsave {
            rounds!("fxrstor64 [rdi]", image, area, mask)
        } else {
            rounds!("xrstor64 [rdi]", image, area, mask)
        }
    }

    /// How many bytes a save changes in memory that held something else.
    fn bytes_written(instruction: SaveInstruction, image: &Area, mask: u64) -> usize {
        let after = [0xa5_u8, 0x5a].map(|poison| {
            let mut area = Box::new(Area([poison; 4096]));
            save(instruction, image, &mut area, mask);
            area.0.map(|byte| byte != poison)
        });
        (0..4096).filter(|&at| after[0][at] || after[1][at]).count()
    }

    /// Cycles, and what part of `plain` they are.
    fn cells(cycles: u64, plain: u64) -> [String; 2] {
        let ratio = ratio(cycles, plain);
        [cycles.to_string(), format!("{ratio:.2}")]
    }

    #[expect(clippy::cast_precision_loss, reason = "some hundreds of cycles")]
    fn ratio(cycles: u64, plain: u64) -> f64 {
        cycles as f64 / plain as f64
    }

    pub(super) fn main() -> ExitCode {
        let features = fpu::features();
        let mask = features.xcr0();
        if mask == 0 {
            eprintln!("NOT RUN: this machine has no XSAVE to compare with");
            return ExitCode::SUCCESS;
        }
        let everything = Area::image(mask);
        let mut area = Box::new(Area::image(mask));
        let plain = [save, restore].map(|work| {
            cycles(&everything, &mut area, mask, |area| {
                work(SaveInstruction::Xsave, &everything, area, mask)
            })
        });
        println!(
            "XCR0 {mask:#x}, this machine's save instruction: {}; areas of {} bytes",
            features.save_instruction(),
            features.area_bytes()
        );
        println!(
            "A plain XSAVE takes {} cycles, a plain XRSTOR {}; \"ratio\" is to these.\n",
            plain[0], plain[1]
        );
        moves(mask, plain);
        let result = wipes(mask);
        match write_costs(mask) {
            Ok(()) => result,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Leaves what a save and a restore of a state with vectors in use take where `cargo simulate --costs here` finds it.
    fn write_costs(mask: u64) -> Result<(), String> {
        let instruction = fpu::features()
            .save_instruction()
            .min(SaveInstruction::Xsavec);
        let image = Area::image(mask & 0b110);
        let mut area = Box::new(Area::ZERO);
        let [save, restore] = [save, restore].map(|work| {
            cycles(&image, &mut area, mask, |area| {
                work(instruction, &image, area, mask)
            })
        });
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/pcu9");
        let file = format!("{folder}/costs.json");
        let costs = serde_json::json!({ "restore": restore, "save": save });
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, costs.to_string()));
        written.map_err(|error| format!("{file}: {error}"))
    }

    /// The table of saves and restores.
    fn moves(mask: u64, [xsave, xrstor]: [u64; 2]) {
        let head = [
            "instruction",
            "in use",
            "bytes",
            "save",
            "ratio",
            "restore",
            "ratio",
        ];
        let mut rows = vec![head.map(String::from).to_vec()];
        for instruction in [
            SaveInstruction::Fxsave,
            SaveInstruction::Xsave,
            SaveInstruction::Xsaveopt,
            SaveInstruction::Xsavec,
        ] {
            if instruction > fpu::features().save_instruction() {
                println!(
                    "NOT RUN: this machine does not show {instruction}, or it is not to be used"
                );
                continue;
            }
            for (name, components) in [
                ("nothing", 0),
                ("sse", 2),
                ("sse, avx", 6),
                ("x87, sse, avx", 7),
                ("all, avx-512", 0xe7),
            ] {
                if components & !mask != 0 {
                    continue;
                }
                let image = Area::image(components);
                let mut area = Box::new(Area::ZERO);
                let [saves, restores] = [save, restore].map(|work| {
                    cycles(&image, &mut area, mask, |area| {
                        work(instruction, &image, area, mask)
                    })
                });
                let mut row = vec![instruction.to_string(), name.to_owned()];
                row.push(bytes_written(instruction, &image, mask).to_string());
                row.extend(cells(saves, xsave));
                row.extend(cells(restores, xrstor));
                rows.push(row);
            }
        }
        print!("{}", render_table(&rows));
        println!(" XSAVES and XRSTORS are ring 0's: not run.\n");
    }

    /// The table of wipes; whether the cheap one is.
    fn wipes(mask: u64) -> ExitCode {
        extern "C" fn wipe() {
            // SAFETY: user mode has no gate, and the measurement keeps nothing in registers. What is in use is SSE and AVX
            // alone, so the unit does not come to a restore, which may be ring 0's.
            unsafe { <Fpu as PcuOps<Area>>::state_wipe() };
        }
        let vectors = Area::image(mask & 0b110);
        let mut initial = [(); 4].map(|()| Box::new(Area::image(0)));
        let [a, b, c, d] = &mut initial;
        let alone = |area: &mut Area, work: fn(&Area, &mut Area, u64) -> u64| {
            cycles(&vectors, area, mask, |area| work(&vectors, area, mask))
        };
        let in_a_row = |area: &mut Area, work: fn(&Area, &mut Area, u64) -> u64| {
            let mut unused = Box::new(Area::ZERO);
            let base = || streak!("", &vectors, &mut unused, mask);
            beyond(base, || work(&vectors, area, mask))
        };
        let mut rows = vec![
            ["wipe", "alone", "ratio", "in a row", "ratio"]
                .map(String::from)
                .to_vec(),
        ];
        let full = [
            alone(a, |image, area, mask| {
                rounds!("xrstor64 [rdi]", image, area, mask)
            }),
            in_a_row(b, |image, area, mask| {
                streak!("xrstor64 [rdi]", image, area, mask)
            }),
        ];
        let mut row = |name: &str, cycles: [u64; 2]| {
            let [alone, in_a_row] = [0, 1].map(|at| cells(cycles[at], full[at]));
            rows.push([&[name.to_owned()][..], &alone, &in_a_row].concat());
        };
        row("XRSTOR of the initial image", full);
        if !fpu::features().can_tell_use() || mask & 0b100 == 0 {
            print!("{}", render_table(&rows));
            eprintln!(
                "NOT RUN: this machine has no AVX, or cannot tell what is in use: no cheap wipe"
            );
            return ExitCode::SUCCESS;
        }
        let cheap = [
            alone(
                c,
                |image, area, mask| rounds!("call {wipe}", image, area, mask, wipe = sym wipe),
            ),
            in_a_row(
                d,
                |image, area, mask| streak!("call {wipe}", image, area, mask, wipe = sym wipe),
            ),
        ];
        row("the unit's, x87 not in use", cheap);
        print!("{}", render_table(&rows));
        let part = ratio(cheap[1], full[1]);
        println!(
            "\nThe cheap wipe takes {part:.2} of the full one, in a row; at most {WIPE_LIMIT} is asked for."
        );
        if part <= WIPE_LIMIT {
            ExitCode::SUCCESS
        } else {
            eprintln!(
                "error: the cheap wipe takes {} cycles, an XRSTOR of the initial image {}",
                cheap[1], full[1]
            );
            ExitCode::FAILURE
        }
    }
}
