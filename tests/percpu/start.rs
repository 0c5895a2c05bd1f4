//! The beginning, and CPUs that come and go.

use pcu9::kernel::CpuId;
use pcu9::percpu::descriptor::{Descriptor, Kind};
use pcu9::percpu::{CpuError, CpuState, InitError};

use crate::machine::{Machine, PCPU, STRIDE, TICKS, area, cpu, parts, percpu, refusal, tables};

#[test]
fn a_good_section_is_taken() {
    assert_eq!(refusal(|_| ()), None);
}

#[test]
fn a_section_without_the_block_is_missing() {
    let error = refusal(|parts| parts.template.1 = parts.template.0).expect("refused");
    assert!(matches!(error, InitError::SectionMissing { start, stop } if start == stop));
    assert!(
        error
            .to_string()
            .contains("linker script loses section set_pcpu")
    );
}

#[test]
fn a_variable_outside_the_section_is_named() {
    let error = refusal(|parts| {
        // The section ends behind the block, so that whatever the linker put after it is outside.
        parts.template.1 = parts.pcpu.wrapping_add(parts.pcpu_bytes);
        parts.template.0 = parts.pcpu;
    })
    .expect("refused");
    assert!(
        matches!(error, InitError::Outside { name, .. } if name.starts_with("percpu::machine::")),
        "{error}"
    );
}

#[test]
fn a_misaligned_section_is_refused() {
    let error = refusal(|parts| parts.template.0 = parts.template.0.wrapping_sub(8));
    assert!(matches!(error, Some(InitError::Misaligned { .. })));
}

#[test]
fn a_variable_that_asks_for_too_much_alignment_is_named() {
    #[repr(align(128))]
    struct Wide;
    let error = refusal(|parts| {
        let wide = Descriptor::new::<Wide>(Kind::Variable, "WIDE", "Wide", parts.pcpu);
        let row = Box::leak(Box::new([wide])).as_ptr_range();
        parts.descriptors = (row.start, row.end);
    });
    let (name, align) = ("WIDE", 128);
    assert_eq!(error, Some(InitError::Alignment { name, align }));
}

#[test]
fn an_area_that_is_too_small_is_refused() {
    let (percpu, spare) = (percpu(parts()), || tables(1, 1000));
    for stride in [64, STRIDE + 8] {
        let error = percpu.init(64, stride, spare()).expect_err("refused");
        assert!(matches!(error, InitError::Stride { stride: s, .. } if s == stride));
    }
    assert_eq!(percpu.init(64, STRIDE, spare()), Ok(()));
    assert_eq!(percpu.init(64, STRIDE, spare()), Err(InitError::Twice));
}

#[test]
fn tables_that_are_too_small_are_refused() {
    let percpu = percpu(parts());
    let error = percpu.init(65, STRIDE, tables(1, 1000));
    assert_eq!(
        error,
        Err(InitError::TooFewGroups {
            max_cpus: 65,
            n_groups: 1
        })
    );
    let needed = percpu.zpcpu_words(STRIDE);
    let error = percpu.init(64, STRIDE, tables(1, needed - 1));
    assert_eq!(
        error,
        Err(InitError::ZpcpuTable {
            words: needed - 1,
            needed
        })
    );
    assert_eq!(percpu.init(64, STRIDE, tables(1, needed)), Ok(()));
}

#[test]
fn before_init_there_is_no_cpu() {
    let percpu = percpu(parts());
    // SAFETY: new memory, which nobody frees.
    let error = unsafe { percpu.add_cpu(cpu(0), area()) }.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "cpu 0: the per-cpu data are not initialised"
    );
    assert_eq!(percpu.present().count(), 0);
    assert_eq!(percpu.state(cpu(0)), CpuState::Absent);
}

#[test]
fn ids_may_have_gaps() {
    let machine = Machine::new(&[0, 3, 63, 64, 199]);
    let ids: Vec<_> = machine.percpu.present().map(CpuId::number).collect();
    assert_eq!(ids, [0, 3, 63, 64, 199]);
    assert_eq!(machine.percpu.state(cpu(1)), CpuState::Absent);
    assert!(TICKS.on(machine.percpu, cpu(1)).is_none());
    assert!(PCPU.on(machine.percpu, cpu(199)).is_some());
    assert_eq!(
        machine.add(200),
        Err(CpuError::TooLarge {
            cpu: cpu(200),
            max_cpus: 200
        })
    );
    assert_eq!(machine.add(3), Err(CpuError::PresentAlready(cpu(3))));
}

#[test]
fn an_area_that_is_misaligned_is_refused() {
    let machine = Machine::new(&[0]);
    // SAFETY: refused before it is touched.
    let at = unsafe { area().add(8) };
    // SAFETY: as above.
    let error = unsafe { machine.percpu.add_cpu(cpu(1), at) };
    assert!(matches!(error, Err(CpuError::Misaligned { .. })));
    assert_eq!(machine.percpu.state(cpu(1)), CpuState::Absent);
}

#[test]
fn a_cpu_is_present_started_offline_and_started_again() {
    let machine = Machine::new(&[0]);
    let percpu = machine.percpu;
    assert_eq!(percpu.set_started(cpu(5)), Err(CpuError::Absent(cpu(5))));
    machine.add(5).expect("a new CPU");
    let mut states = vec![percpu.state(cpu(5))];
    percpu.set_started(cpu(5)).expect("present");
    states.push(percpu.state(cpu(5)));
    TICKS.increment(machine.go_to(5));
    machine.go_to(0);
    percpu.set_offline(cpu(5)).expect("present");
    states.push(percpu.state(cpu(5)));
    assert_eq!(percpu.started().count(), 1);
    assert_eq!(percpu.present().count(), 2);
    assert_eq!(TICKS.sum(percpu), 2001, "an offline CPU's data count");
    percpu.set_started(cpu(5)).expect("present");
    states.push(percpu.state(cpu(5)));
    assert_eq!(
        states,
        [
            CpuState::Present,
            CpuState::Started,
            CpuState::Offline,
            CpuState::Started
        ]
    );
    assert_eq!(TICKS.sum(percpu), 2001, "and are there when it comes back");
}

#[test]
fn a_cpu_that_is_removed_is_absent_and_may_come_again() {
    let machine = Machine::new(&[0, 1]);
    let percpu = machine.percpu;
    TICKS.add(machine.go_to(1), 9);
    machine.go_to(0);
    // SAFETY: refused.
    let error = unsafe { percpu.remove_cpu(cpu(1)) };
    assert_eq!(error, Err(CpuError::Runs(cpu(1))));
    percpu.set_offline(cpu(1)).expect("present");
    // SAFETY: nobody has a reference into it.
    let area = unsafe { percpu.remove_cpu(cpu(1)) }.expect("it does not run");
    assert_eq!(percpu.state(cpu(1)), CpuState::Absent);
    assert!(TICKS.on(percpu, cpu(1)).is_none());
    // SAFETY: the area that was given back.
    unsafe { percpu.add_cpu(cpu(1), area) }.expect("absent");
    assert_eq!(TICKS.get(machine.go_to(1)), 1000, "it begins anew");
}
