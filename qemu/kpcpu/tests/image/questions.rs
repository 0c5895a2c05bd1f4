//! Every question that there is, put to any bytes: the answers do not matter, that there is one does.

use std::sync::Arc;

use pcu9_kpcpu::{Dump, KernelFile, Kpcpu, Torn};

/// How many CPUs are asked about; a damaged table can have thousands, each as good as the next.
const CPUS: usize = 6;

/// Opens the kernel on the dump, if they can be, and asks.
pub(crate) fn ask_everything(kernel: &[u8], dump: impl Into<Arc<[u8]>>) {
    if let Ok(kernel) = KernelFile::parse(kernel) {
        ask_of(kernel, dump);
    }
}

/// The same with a kernel's file that was read already.
pub(crate) fn ask_of(kernel: KernelFile, dump: impl Into<Arc<[u8]>>) {
    let Ok(dump) = Dump::from_bytes(dump) else {
        return;
    };
    let registers = dump.cpus().to_vec();
    let Ok(mut kernel) = Kpcpu::with_memory(kernel, Box::new(dump), registers) else {
        return;
    };
    let _ = kernel.getncpus();
    kernel.accept_torn(Torn::Accept);
    let _ = (kernel.getmaxcpu(), kernel.getncpus());
    let _ = (kernel.unit_names(), kernel.counter_names(), kernel.table());
    for cpu in kernel.present().unwrap_or_default().into_iter().take(CPUS) {
        let _ = (kernel.getpcpu(cpu), kernel.units(cpu));
        let _ = kernel.dpcpu_setcpu(cpu);
        for name in ["kernel::COLOUR", "COLOUR", "plain"] {
            if let Ok(found) = kernel.nlist(name) {
                let mut bytes = [0; 64];
                let _ = kernel.read_partial(found.address, &mut bytes);
                let _ = kernel.read_zpcpu(found.address, &mut bytes, cpu);
            }
        }
    }
    for name in ["PACKETS", "LATE"] {
        let _ = kernel
            .counter(name)
            .and_then(|base| kernel.counter_u64_fetch(base));
    }
    let lwps = kernel.lwps().unwrap_or_default();
    for lwp in lwps.iter().take(CPUS) {
        let _ = kernel.fpu(lwp);
    }
    kernel.clear_cache();
}
