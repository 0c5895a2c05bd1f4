//! I1 to I7 of `pcu9::pcu`, in every state and over every step.

use pcu9::pcu::{LeakRule, Residue};

use super::choice::Choice;
use super::facts::{Facts, Place};
use super::flight::Who;
use super::unit::{INITIAL, domain_of};
use super::world::{CPUS, LWPS, UNITS, World};

impl World {
    /// Takes a choice, and checks the step and the state that it leads to.
    ///
    /// # Panics
    ///
    /// If anything is wrong.
    pub(crate) fn step(&'static self, choice: Choice) {
        let before = Facts::of(self);
        self.take(choice);
        let after = Facts::of(self);
        self.check_step(&before, &after);
        self.check(&after);
        self.witness.look(self);
    }

    /// I1 and I2.
    fn check_step(&self, before: &Facts, after: &Facts) {
        let here = self.here.get();
        for cpu in (0..CPUS).filter(|cpu| *cpu != here) {
            assert!(
                before.cpus[cpu] == after.cpus[cpu],
                "I1: cpu {here} wrote an entry of cpu {cpu}"
            );
        }
        for lwp in 0..LWPS {
            for unit in 0..UNITS {
                let (old, new) = (before.lwps[lwp][unit].place, after.lwps[lwp][unit].place);
                if old == new {
                    continue;
                }
                if let Place::Live(holder) = old {
                    assert_eq!(
                        holder, here,
                        "I2: a live location was cleared by another CPU, lwp {lwp} unit {unit}"
                    );
                }
                if let Place::Live(holder) = new {
                    let is_current = self.cpus[here].own.current.get() == Some(lwp);
                    assert!(
                        holder == here && is_current,
                        "I2: lwp {lwp} went live on cpu {holder} from cpu {here}"
                    );
                }
            }
        }
    }

    /// I3, I4, I5, and the gates.
    fn check(&self, facts: &Facts) {
        for lwp in 0..LWPS {
            // A child that is being made is nobody's yet.
            if self.lwps[lwp].own.is_held.get() {
                continue;
            }
            for unit in 0..UNITS {
                let ends = self
                    .flight(Who::Lwp(lwp))
                    .is_some_and(|flight| flight.ends(unit));
                self.check_newest(facts, lwp, unit, ends);
            }
        }
        for cpu in 0..CPUS {
            for unit in 0..UNITS {
                self.check_cpu(facts, cpu, unit);
            }
            self.check_settled(facts, cpu);
        }
    }

    fn check_newest(&self, facts: &Facts, lwp: usize, unit: usize, ends: bool) {
        let own = &self.lwps[lwp].own;
        let (newest, memory) = (own.newest[unit].get(), own.memory[unit].get());
        match facts.lwps[lwp][unit].place {
            Place::Nothing => assert!(ends || newest == INITIAL, "I4: lwp {lwp} lost unit {unit}"),
            Place::Memory => assert!(
                memory == newest,
                "I4: lwp {lwp} unit {unit}: memory is not the newest"
            ),
            Place::Live(cpu) => {
                let holder = &self.cpus[cpu].own;
                let entry = facts.cpus[cpu][unit];
                assert_eq!(
                    holder.registers[unit].get(),
                    newest,
                    "I4: lwp {lwp} unit {unit}: cpu {cpu} has not the newest"
                );
                let agrees = entry.owner == Some(lwp) && entry.serial == facts.serials[lwp][unit];
                assert!(
                    holder.raised.get() || agrees,
                    "I3: lwp {lwp} unit {unit}: cpu {cpu} knows nothing of it"
                );
            }
            Place::Linked(cpu) => {
                assert!(
                    memory == newest,
                    "I4: lwp {lwp} unit {unit}: clean memory is not the newest"
                );
                let register = self.cpus[cpu].own.registers[unit].get();
                assert_eq!(
                    register, memory,
                    "I4: lwp {lwp} unit {unit}: the link to cpu {cpu} lies"
                );
            }
        }
    }

    /// What the note of a switch-in that found nothing to do says, is so.
    fn check_settled(&self, facts: &Facts, cpu: usize) {
        let Some((lwp, units)) = facts.settled[cpu] else {
            return;
        };
        if self.cpus[cpu].own.raised.get() {
            return;
        }
        let mask = |holds: &dyn Fn(usize) -> bool| {
            let units = (0..UNITS).filter(|unit| holds(*unit));
            units.fold(0, |mask, unit| mask | 1 << unit)
        };
        let owned = mask(&|unit| facts.cpus[cpu][unit].owner == Some(lwp));
        assert_eq!(owned, units, "cpu {cpu} is settled for lwp {lwp}");
        let open = mask(&|unit| facts.cpus[cpu][unit].is_enabled);
        assert!(
            open == 0 || open == units,
            "cpu {cpu} is settled for lwp {lwp}: gates {open:#b} of {units:#b}"
        );
        let domain = self.lwps[lwp].own.domain.get();
        for entry in facts.cpus[cpu] {
            assert!(
                match entry.residue {
                    Residue::None => true,
                    Residue::Of(of) => of.get() == domain,
                    _ => false,
                },
                "cpu {cpu} is settled for lwp {lwp}, over bits of another domain"
            );
        }
    }

    fn check_cpu(&self, facts: &Facts, cpu: usize, unit: usize) {
        let own = &self.cpus[cpu].own;
        let entry = facts.cpus[cpu][unit];
        let open = own.open[unit].get();
        assert_eq!(
            open, entry.is_enabled,
            "the shadow of the gate, cpu {cpu} unit {unit}"
        );
        if own.raised.get() {
            return;
        }
        if let Some(owner) = entry.owner {
            let place = facts.lwps[owner][unit].place;
            assert_eq!(
                place,
                Place::Live(cpu),
                "I3: cpu {cpu} unit {unit} names lwp {owner}"
            );
        }
        let colour = domain_of(own.registers[unit].get());
        let is_covered = match entry.residue {
            Residue::None => own.registers[unit].get() == INITIAL,
            Residue::Of(domain) => colour == 0 || colour == domain.get(),
            _ => true,
        };
        assert!(
            is_covered,
            "I5: the residue of cpu {cpu} unit {unit} is not what its registers hold"
        );
        let Some(lwp) = own.current.get() else { return };
        assert!(
            !open || entry.owner == Some(lwp),
            "cpu {cpu} unit {unit} is open for lwp {lwp}"
        );
        let could_be_in_user_mode = self.flight(Who::Lwp(lwp)).is_none();
        if could_be_in_user_mode && self.pcu.leak_rule() == LeakRule::DomainAware {
            let domain = self.lwps[lwp].own.domain.get();
            assert!(
                colour == 0 || colour == domain,
                "I5: lwp {lwp} of domain {domain} runs over bits of domain {colour} on cpu {cpu}"
            );
        }
    }
}
