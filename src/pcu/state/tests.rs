//! What the protocol remembers, bit by bit.

use super::{CpuPcu, Habits, LwpPcu, MIXED_DOMAINS, NO_DOMAIN};
use crate::pcu::policy::Policy;
use crate::pcu::unit::UnitId;

const UNITS: [UnitId; 3] = [UnitId::new(0), UnitId::new(1), UnitId::new(2)];

/// The domains of three units' residues in the order in which they are noted, and what their summary becomes.
#[test]
fn the_summary_of_the_residues_is_none_one_or_mixed() {
    let cpu = CpuPcu::<(), 3>::new();
    for (unit, domain, summary) in [
        (0, 5, 5),
        (1, 5, 5),
        (1, NO_DOMAIN, 5),
        (2, 6, MIXED_DOMAINS),
        (0, NO_DOMAIN, 6),
        (1, MIXED_DOMAINS, MIXED_DOMAINS),
        (2, NO_DOMAIN, MIXED_DOMAINS),
        (1, NO_DOMAIN, NO_DOMAIN),
    ] {
        cpu.set_residue(UNITS[unit], domain);
        assert_eq!(
            (cpu.residue(UNITS[unit]), cpu.residue_summary()),
            (domain, summary)
        );
        assert_eq!(cpu.attention() == 0, summary == NO_DOMAIN);
    }
}

#[test]
fn gates_and_residues_do_not_disturb_each_other() {
    let cpu = CpuPcu::<(), 3>::new();
    cpu.set_enabled(UNITS[0]);
    cpu.set_enabled(UNITS[2]);
    cpu.set_enabled(UNITS[2]);
    cpu.set_residue(UNITS[0], 5);
    assert_eq!(cpu.enabled(), 0b101);
    assert_eq!(UNITS.map(|unit| cpu.is_enabled(unit)), [true, false, true]);
    cpu.set_disabled(UNITS[0]);
    cpu.set_disabled(UNITS[1]);
    assert_eq!(cpu.enabled(), 0b100);
    cpu.set_disabled(UNITS[2]);
    assert_eq!(
        (cpu.enabled(), cpu.residue_summary(), cpu.attention() != 0),
        (0, 5, true)
    );
    cpu.set_residue(UNITS[0], NO_DOMAIN);
    assert_eq!(cpu.attention(), 0);
    cpu.set_enabled(UNITS[1]);
    assert_ne!(cpu.attention(), 0);
}

#[test]
fn what_is_known_of_one_unit_says_nothing_of_another() {
    let lwp = LwpPcu::<3>::new();
    let known = || UNITS.map(|unit| lwp.is_known_initial(unit));
    lwp.set_known_initial(UNITS[0]);
    lwp.set_known_initial(UNITS[2]);
    assert_eq!(known(), [true, false, true]);
    lwp.forget_known_initial(UNITS[1]);
    lwp.forget_known_initial(UNITS[0]);
    assert_eq!(known(), [false, false, true]);
}

#[test]
fn habits_and_the_policy_share_a_word_and_come_back_whole() {
    let some = Habits {
        uses: 0x1234,
        writes: 0x5678,
        probe_in: 0x9abc,
        doublings: 4,
        ..Habits::default()
    };
    let lwp = LwpPcu::<1>::new();
    lwp.set_policy(Some(Policy::Probe));
    for flags in 0..8 {
        let habits = Habits {
            preload: flags & 1 != 0,
            probing: flags & 2 != 0,
            used: flags & 4 != 0,
            ..some
        };
        lwp.set_habits(habits);
        assert_eq!((lwp.habits(), lwp.policy()), (habits, Some(Policy::Probe)));
    }
    lwp.set_policy(None);
    assert_eq!((lwp.habits(), lwp.policy()), (Habits::default(), None));
}

#[test]
fn a_use_that_is_noted_twice_is_a_use() {
    let lwp = LwpPcu::<1>::new();
    lwp.note_use();
    lwp.note_use();
    let used = Habits {
        used: true,
        ..Habits::default()
    };
    assert_eq!(lwp.habits(), used);
}
