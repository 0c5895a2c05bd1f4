//! Fork, exec, exit.

use super::Pcu;
use super::local::Command;
use crate::kernel::{Current, Held, IplPcu, Kernel, NoAnswer, Stopped};

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Gives `child` a copy of the current LWP's state of every unit: the parent keeps its registers, the child owns none,
    /// and its first use loads what the parent had now. NetBSD: `pcu_save_all` in `lwp_create`, the copy of the area in
    /// `cpu_lwp_fork`, and the copy of the valid map, which were three steps there, and wrong for seven years.
    ///
    /// The child must have its areas already, for every unit of which [`LwpPcu::valid_p`](super::LwpPcu::valid_p) holds for
    /// the parent.
    ///
    /// Context: current LWP, below `IPL_PCU`; may wait for a cross-call. A child that has a state already loses it.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] from a CPU that holds the parent's registers: the child has no state then, and may be thrown away. Or from one that
    /// holds a former state of the child's, which it keeps then: one that has run elsewhere, as no new child has.
    #[doc(alias = "lwp_create")]
    pub fn fork(
        &self,
        parent: &mut Current<'_, K, N>,
        child: &mut Stopped<'_, K, N>,
    ) -> Result<(), NoAnswer> {
        self.discard_all(child)?;
        let copied = self
            .units()
            .try_for_each(|unit| self.operate(parent, unit, Command::Copy(child.lwp())));
        if copied.is_err() {
            // It is live nowhere, so nobody is asked.
            self.discard_all(child)?;
        }
        copied
    }

    /// Starts the current LWP over: no state of any unit, and nothing of its former domain in the registers.
    /// `change_domain` gives it its new domain; it runs when the old state is gone, at `IPL_PCU`, so that nothing of the old
    /// domain is ever taken for the new one's.
    ///
    /// Context: current LWP, below `IPL_PCU`; may wait for a cross-call.
    ///
    /// # Errors
    ///
    /// As [`discard_all`](Self::discard_all); the domain was not changed.
    pub fn exec(
        &self,
        lwp: &mut Current<'_, K, N>,
        change_domain: impl FnOnce(),
    ) -> Result<(), NoAnswer> {
        self.discard_all(lwp)?;
        let ipl = IplPcu::up(lwp.kernel());
        change_domain();
        self.arrive(&ipl, lwp.lwp());
        Ok(())
    }

    /// Ends the current LWP's use of all units. What it leaves in the registers is nobody's, and wiped before another
    /// domain runs.
    ///
    /// Context: current LWP, below `IPL_PCU`, before its memory can be freed; may wait for a cross-call. It must not use a
    /// unit afterwards.
    ///
    /// # Errors
    ///
    /// As [`discard_all`](Self::discard_all).
    pub fn exit(&self, mut lwp: Current<'_, K, N>) -> Result<(), NoAnswer> {
        self.discard_all(&mut lwp)
    }
}
