//! L2, L3: the x87 pointers, which AMD's processors leave in place unless an error is pending (CVE-2006-1056, XSA-52, XSA-172).

use pcu9::pcu::{LeakRule, Policy};
use pcu9_mock::{
    Cpu, ErrorPointers, Fault, KERNEL_POINTERS, Mock, Model, Registers, X87Registers, models,
};

use super::TRUSTING;
use super::world::World;

/// An x87 state with pointers of its own; with an error pending, or none.
fn x87(seed: u64, pending: bool) -> X87Registers {
    X87Registers {
        fcw: if pending { 0x037b } else { 0x037f },
        fsw: if pending { 0x8084 } else { 0 },
        fop: u16::try_from(seed).unwrap(),
        fip: 0x1000 + seed,
        fdp: 0x2000 + seed,
        ..X87Registers::INITIAL
    }
}

fn pointers(world: &World<Mock>) -> (u16, u64, u64) {
    let mut found = (0, 0, 0);
    let read = |cpu: &mut Cpu| -> Result<(), Fault> {
        let x87 = &cpu.registers.x87;
        found = (x87.fop, x87.fip, x87.fdp);
        Ok(())
    };
    world.compute(0, read).unwrap();
    found
}

/// The victim leaves pointers; the attacker, with a state of its own kind, reads what FNSTENV would show it.
fn attack(model: &'static Model, rule: LeakRule, victim: bool, attacker: Option<bool>) {
    let world = World::<Mock>::new(model, 1, 2, Policy::Lazy, rule);
    if let Some(pending) = attacker {
        world.switch(0, Some(1));
        world
            .compute(0, |cpu| cpu.write_x87(x87(7, pending)))
            .unwrap();
    }
    world.switch(0, Some(0));
    world
        .compute(0, |cpu| cpu.write_x87(x87(99, victim)))
        .unwrap();
    world.switch(0, Some(1));
    let found = pointers(&world);
    let own = attacker.map_or((0, 0, 0), |_| (7, 0x1007, 0x2007));
    let are_kept = model.error_pointers == ErrorPointers::Moved || attacker == Some(true);
    let is_nobodys = found == (0, 0, 0) || found == KERNEL_POINTERS;
    let what = format!(
        "{}: victim {victim}, attacker {attacker:?}: {found:x?}",
        model.name
    );
    assert!(found == own || is_nobodys && !are_kept, "{what}");
    world.check_end();
}

#[test]
fn nobody_reads_anothers_x87_pointers() {
    for model in super::models::all() {
        for rule in [LeakRule::DomainAware, TRUSTING] {
            for victim in [false, true] {
                attack(model, rule, victim, None);
                attack(model, rule, victim, Some(false));
                attack(model, rule, victim, Some(true));
            }
        }
    }
}

/// A wipe leaves no pointers either, behind the closed gate, wherever the next restore would leave them in place. Where it writes
/// them, AMD from Zen on, a wipe that goes by `XINUSE` may leave them until then: nothing reads them through a closed gate there.
#[test]
fn a_wipe_leaves_no_pointers_that_a_restore_would_leave() {
    let models = super::models::all().iter();
    for model in models.filter(|model| model.error_pointers != ErrorPointers::ZeroedInMemory) {
        let world = World::<Mock>::new(model, 1, 2, Policy::Lazy, LeakRule::DomainAware);
        world.switch(0, Some(0));
        world.compute(0, |cpu| cpu.write_xmm([1; 256])).unwrap();
        world
            .compute(0, |cpu| cpu.write_x87(x87(99, false)))
            .unwrap();
        world.switch(0, Some(1));
        assert_eq!(world.sum().wipes, 1, "{}", model.name);
        let found = Mock::with(|cpu| {
            (
                cpu.registers.x87.fop,
                cpu.registers.x87.fip,
                cpu.registers.x87.fdp,
            )
        });
        let is_nobodys = found == (0, 0, 0) || found == KERNEL_POINTERS;
        assert!(is_nobodys, "{}: {found:x?}", model.name);
        world.check_end();
    }
}

/// The wipe's own instruction must not take the exception that the last LWP left pending, nor leave one.
#[test]
fn a_pending_error_of_another_is_not_taken_and_not_inherited() {
    for model in super::models::all() {
        let world = World::<Mock>::new(model, 1, 2, Policy::Lazy, TRUSTING);
        world.switch(0, Some(0));
        world
            .compute(0, |cpu| cpu.write_x87(x87(99, true)))
            .unwrap();
        world.switch(0, Some(1));
        world.compute(0, |cpu| cpu.fwait()).unwrap();
        world.switch(0, Some(0));
        let taken = std::cell::Cell::new(Ok(()));
        world
            .compute(0, |cpu| {
                taken.set(cpu.fwait());
                Ok(())
            })
            .unwrap();
        assert_eq!(
            taken.get(),
            Err(Fault::Math),
            "{}: its own is still pending",
            model.name
        );
    }
}

#[repr(align(16))]
struct Image([u8; 512]);

/// The quirk itself, or the tests above would show nothing.
#[test]
fn the_mock_leaves_pointers_in_place_as_the_processors_do() {
    use pcu9::x86_64::machine::Machine;
    for (model, expected) in [(&models::K8, 0x1063), (&models::MEROM, 0)] {
        Mock::power_on(model, 1);
        Mock::with(|cpu| cpu.cr4 |= pcu9_mock::CR4_OSFXSR);
        let mut image = Image([0; 512]);
        image.0[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        image.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Mock::with(|cpu| {
            cpu.registers = Registers::initial(model);
            cpu.registers.x87.fip = 0x1063;
        });
        // SAFETY: an image of 512 bytes at a multiple of 16.
        unsafe { Mock::fxrstor(std::ptr::NonNull::from(&mut image.0).cast()) }.unwrap();
        assert_eq!(
            Mock::with(|cpu| cpu.registers.x87.fip),
            expected,
            "{}",
            model.name
        );
    }
}
