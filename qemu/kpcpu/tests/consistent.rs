//! What a reader does when the kernel changes under it: it asks again, three times, and then says so.

#![cfg(not(target_os = "none"))]

mod image;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use image::{COLOUR, HEADER, Image, KERNEL_BASE, LIST, LWPS, Options};
use pcu9_kpcpu::{Dump, Error, Gone, KernelFile, Kpcpu, PhysicalMemory, Torn};

/// A guest that does as it is told: its memory is that of an image, but for what changes from look to look at its header.
#[derive(Debug)]
struct Running {
    image: Dump,
    script: Rc<Script>,
}

/// What a guest does.
#[derive(Debug, Default)]
struct Script {
    /// The generation at each look; the last one stays.
    generations: RefCell<Vec<u64>>,
    /// Eight bytes of physical memory that are other ones until so many looks were taken.
    damage: Cell<Option<(u64, u64, usize)>>,
    looks: Cell<usize>,
    gone: Cell<Option<Gone>>,
}

impl PhysicalMemory for Running {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.image.read(address, buffer)?;
        let script = &*self.script;
        if address == HEADER - KERNEL_BASE && n == 384 {
            let look = script.looks.get();
            script.looks.set(look + 1);
            let generations = script.generations.borrow();
            let last = generations.last().copied().unwrap_or(2);
            let generation = generations.get(look).copied().unwrap_or(last);
            buffer[40..48].copy_from_slice(&generation.to_le_bytes());
        }
        if let Some((at, value, until)) = script.damage.get() {
            let skip = at
                .checked_sub(address)
                .and_then(|n| usize::try_from(n).ok());
            let part = skip.and_then(|skip| buffer.get_mut(skip..)?.get_mut(..8));
            if let Some(part) = part.filter(|_| script.looks.get() < until) {
                part.copy_from_slice(&value.to_le_bytes());
            }
        }
        Ok(n)
    }

    fn is_live(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), Gone> {
        self.script.gone.get().map_or(Ok(()), Err)
    }
}

/// Opens a guest and lets it do from then on, as its looks are counted, what `generations` say.
fn running(generations: &[u64]) -> (Kpcpu, Rc<Script>) {
    let image = Image::new(Options::default());
    let script = Rc::new(Script::default());
    let memory = Running {
        image: Dump::from_bytes(image.bytes()).expect("a dump"),
        script: Rc::clone(&script),
    };
    let file = KernelFile::parse(&image.kernel).expect("a kernel");
    let kernel = Kpcpu::with_memory(file, Box::new(memory), Vec::new()).expect("it opens");
    script.looks.set(0);
    *script.generations.borrow_mut() = generations.to_vec();
    (kernel, script)
}

#[test]
fn a_kernel_that_stands_is_asked_once() {
    let (kernel, script) = running(&[2]);
    assert_eq!(kernel.getncpus().expect("n"), 3);
    assert_eq!(script.looks.get(), 2);
    // A question that has parts is one question.
    kernel.lwps().expect("the list");
    assert_eq!(script.looks.get(), 4);
}

#[test]
fn a_set_of_cpus_that_changes_is_asked_again_three_times() {
    // Each pair of looks encloses a change, but for the last.
    for n_changes in 0..=3 {
        let mut generations: Vec<u64> = (1..=2 * n_changes).map(|n| 2 * n).collect();
        generations.extend([100, 100]);
        let (kernel, script) = running(&generations);
        let mut asked = 0;
        let answer = kernel.consistent(|kernel| {
            asked += 1;
            kernel.getncpus()
        });
        assert_eq!(answer.expect("in the end it stands"), 3);
        assert_eq!(asked, n_changes + 1);
        assert_eq!(script.looks.get() as u64, 2 * (n_changes + 1));
    }
}

#[test]
fn after_three_retries_the_answer_is_torn() {
    let changing: Vec<u64> = (1..=100).map(|n| 2 * n).collect();
    let (kernel, script) = running(&changing);
    let error = kernel.getncpus().expect_err("it never stands");
    assert!(matches!(error, Error::Torn(16)), "{error}");
    assert!(error.to_string().starts_with("torn: "), "{error}");
    assert_eq!(script.looks.get(), 8);
}

#[test]
fn an_odd_generation_is_not_even_asked() {
    let (mut kernel, script) = running(&[7]);
    let mut asked = 0;
    let answer = kernel.consistent(|kernel| {
        asked += 1;
        kernel.getncpus()
    });
    assert!(matches!(answer, Err(Error::Torn(7))));
    assert_eq!((asked, script.looks.get()), (0, 8));
    // Who does not mind is told what there is.
    kernel.accept_torn(Torn::Accept);
    assert_eq!(kernel.getncpus().expect("n"), 3);
    assert_eq!(script.looks.get(), 10);
}

#[test]
fn every_question_is_asked_so() {
    type Ask = fn(&mut Kpcpu) -> pcu9_kpcpu::Result<()>;
    let questions: [(&str, Ask); 17] = [
        ("getmaxcpu", |k| k.getmaxcpu().map(drop)),
        ("getncpus", |k| k.getncpus().map(drop)),
        ("present", |k| k.present().map(drop)),
        ("getpcpu", |k| k.getpcpu(0).map(drop)),
        ("dpcpu_setcpu", |k| k.dpcpu_setcpu(2)),
        ("read_zpcpu", |k| {
            k.read_zpcpu(COLOUR, &mut [0; 8], 0).map(drop)
        }),
        ("counter_u64_fetch", |k| {
            k.counter_u64_fetch(COLOUR).map(drop)
        }),
        ("counter_u64_percpu", |k| {
            k.counter_u64_percpu(COLOUR).map(drop)
        }),
        ("counter", |k| k.counter("PACKETS").map(drop)),
        ("nlist", |k| k.nlist("kernel::COLOUR").map(drop)),
        ("table", |k| k.table().map(drop)),
        ("unit_names", |k| k.unit_names().map(drop)),
        ("counter_names", |k| k.counter_names().map(drop)),
        ("units", |k| k.units(0).map(drop)),
        ("lwps", |k| k.lwps().map(drop)),
        ("lwp", |k| k.lwp(LWPS).map(drop)),
        ("Sample::take", |k| {
            pcu9_kpcpu::stat::Sample::take(k).map(drop)
        }),
    ];
    for (name, ask) in questions {
        let changing: Vec<u64> = (1..=100).map(|n| 2 * n).collect();
        let (mut kernel, script) = running(&changing);
        assert!(matches!(ask(&mut kernel), Err(Error::Torn(_))), "{name}");
        assert_eq!(script.looks.get(), 8, "{name}");
        // The same kernel once it stands.
        *script.generations.borrow_mut() = vec![300];
        ask(&mut kernel).unwrap_or_else(|error| panic!("{name}: {error}"));
        // And once it is gone.
        script.gone.set(Some(Gone::Closed));
        let error = ask(&mut kernel).expect_err(name);
        assert!(
            matches!(error, Error::Gone(Gone::Closed)),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_new_generation_is_read_anew_and_an_old_one_is_not() {
    let (kernel, script) = running(&[2]);
    assert_eq!(kernel.present().expect("CPUs"), [0, 2, 3]);
    // CPU 5 has come, and nothing said so: the table is kept.
    let groups = image::GROUPS - KERNEL_BASE;
    script.damage.set(Some((groups, 0b101_101, usize::MAX)));
    assert_eq!(kernel.present().expect("CPUs"), [0, 2, 3]);
    *script.generations.borrow_mut() = vec![4];
    assert_eq!(kernel.present().expect("CPUs"), [0, 2, 3, 5]);
}

#[test]
fn a_list_that_is_wrong_for_a_moment_is_read_again_and_a_name_that_is_wrong_is_not() {
    let (kernel, script) = running(&[2]);
    // The first LWP is being replaced during the first three attempts.
    script
        .damage
        .set(Some((LIST - KERNEL_BASE, 0x1234_5678, 6)));
    assert_eq!(kernel.lwps().expect("the list").len(), 3);
    assert_eq!(script.looks.get(), 8);
    script.looks.set(0);
    script
        .damage
        .set(Some((LIST - KERNEL_BASE, 0x1234_5678, 8)));
    let error = kernel.lwps().expect_err("it stays wrong");
    assert!(
        error.to_string().contains("the LWP at 0x12345678"),
        "{error}"
    );
    script.looks.set(0);
    let error = kernel.nlist("nowhere").expect_err("there is none");
    assert!(matches!(error, Error::NoName(_)), "{error}");
    assert_eq!(script.looks.get(), 2);
}

#[test]
fn another_kernel_in_the_same_place_is_told() {
    let header = HEADER - KERNEL_BASE;
    for (at, value, says) in [
        (0, 0, "no header any more"),
        (32, 0, "at its begin again"),
        (32, HEADER + 64, "its header moved"),
        (56, 0x0102_0304_0506_0708, "build id"),
    ] {
        let (kernel, script) = running(&[2]);
        kernel.getncpus().expect("n");
        // In the midst of the next question: at its second look.
        script.looks.set(0);
        let answer = kernel.consistent(|kernel| {
            script.damage.set(Some((header + at, value, usize::MAX)));
            kernel.getncpus()
        });
        let error = answer.expect_err("it was replaced").to_string();
        assert!(
            error.starts_with("the kernel was replaced while it was looked at: ")
                && error.contains(says),
            "{error}"
        );
    }
}

#[test]
fn memory_that_is_read_of_a_guest_that_is_gone_is_no_answer() {
    let (kernel, script) = running(&[2]);
    kernel.read(KERNEL_BASE, &mut [0; 8]).expect("it is there");
    script.gone.set(Some(Gone::Reset));
    let error = kernel.read(KERNEL_BASE, &mut [0; 8]).expect_err("gone");
    assert_eq!(error.to_string(), "the guest was reset");
    let error = kernel.read_partial(KERNEL_BASE, &mut [0; 8]);
    assert!(matches!(error, Err(Error::Gone(Gone::Reset))));
    assert!(matches!(kernel.check(), Err(Error::Gone(Gone::Reset))));
}
