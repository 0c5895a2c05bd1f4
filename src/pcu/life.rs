//! Fork, exec, exit, and a change of the leak rule.

use core::sync::atomic::Ordering;

use super::local::Command;
use super::{LeakRule, Pcu, encode};
use crate::kernel::{CpuId, Current, Held, IplPcu, Kernel, NoAnswer, Stopped};

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Gives `child` a copy of the current LWP's state of every unit: the parent keeps its registers, the child owns none,
    /// and its first use loads what the parent had now. NetBSD: `pcu_save_all` in `lwp_create`, the copy of the area in
    /// `cpu_lwp_fork`, and the copy of the valid map, which were three steps there, and wrong for seven years.
    ///
    /// The child must have its areas already, for every unit of which [`LwpPcu::valid_p`](super::LwpPcu::valid_p) holds for
    /// the parent.
    ///
    /// Context: current LWP, below `IPL_PCU`; may wait for a cross-call. The child has never run.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] from a CPU that holds the parent's registers; the child is to be thrown away.
    #[doc(alias = "lwp_create")]
    pub fn fork(
        &self,
        parent: &mut Current<'_, K, N>,
        child: &mut Stopped<'_, K, N>,
    ) -> Result<(), NoAnswer> {
        self.units()
            .try_for_each(|unit| self.operate(parent, unit, Command::Copy(child.lwp())))
    }

    /// Starts the current LWP over: no state of any unit, and nothing of its former domain in the registers.
    ///
    /// Context: current LWP, below `IPL_PCU`, after the kernel gave it its new domain and before it can enter user mode
    /// there; may wait for a cross-call.
    ///
    /// # Errors
    ///
    /// As [`discard_all`](Self::discard_all).
    pub fn exec(&self, lwp: &mut Current<'_, K, N>) -> Result<(), NoAnswer> {
        self.discard_all(lwp)?;
        let ipl = IplPcu::raise(lwp.kernel());
        self.switch_in(&self.local(&ipl), lwp.lwp());
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

    /// Changes the leak rule on a running system, then asks each of `cpus` once to give up and wipe what it holds.
    ///
    /// Context: current LWP, below `IPL_PCU`; waits for a cross-call to each CPU.
    ///
    /// # Errors
    ///
    /// A CPU that did not answer; it may hold another domain's registers until its next switch between domains.
    pub fn set_leak_rule(
        &self,
        lwp: &mut Current<'_, K, N>,
        cpus: impl IntoIterator<Item = CpuId>,
        rule: LeakRule,
    ) -> Result<(), NoAnswer> {
        self.leak_rule.store(encode(rule), Ordering::Relaxed);
        let kernel = lwp.kernel();
        let mut result = Ok(());
        for cpu in cpus {
            let flush = &|ipl: &IplPcu<'_, K, N>| self.flush(ipl);
            let answer = kernel.cross_call(IplPcu::raise(kernel), cpu, flush);
            result = result.and(answer);
        }
        result
    }

    /// Leaves this CPU's units with initial registers and closed gates.
    fn flush(&self, ipl: &IplPcu<'_, K, N>) {
        self.save_all_on_cpu(ipl);
        let local = self.local(ipl);
        for unit in self.units() {
            local.wipe(unit);
            local.close(unit);
        }
    }
}
