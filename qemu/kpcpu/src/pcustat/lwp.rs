//! One LWP: where its state of each unit is, and its saved FPU registers.

use pcu9_kpcpu::stat::{Column, Layout, Page};
use pcu9_kpcpu::{FpuRegisters, Kpcpu, Lwp, Place as Newest};
use serde::Serialize;

use crate::Result;
use crate::follow::in_words;

#[derive(Serialize)]
pub(crate) struct Place {
    #[serde(flatten)]
    lwp: Lwp,
    unit_names: Vec<String>,
    fpu: Option<FpuRegisters>,
    fpu_is_older: bool,
}

impl Place {
    pub(crate) fn read(kernel: &Kpcpu, number: u64) -> Result<Self> {
        let found = kernel.consistent(|kernel| {
            let lwps = kernel.lwps()?;
            let Some(lwp) = lwps.into_iter().find(|lwp| lwp.number == Some(number)) else {
                return Ok(None);
            };
            Ok(Some(Self {
                unit_names: kernel.unit_names()?,
                fpu: kernel.fpu(&lwp)?,
                fpu_is_older: matches!(lwp.units.get(kernel.fpu_unit()?), Some(Newest::Live(_))),
                lwp,
            }))
        })?;
        found.ok_or_else(|| format!("no LWP has the number {number}").into())
    }

    pub(crate) fn add_to(&self, page: &mut Page) {
        self.places().add_to(page);
        page.line("");
        self.registers().add_to(page);
    }

    fn places(&self) -> Layout {
        let name = self.lwp.name.as_deref().unwrap_or_default();
        let title = format!("LWP {} {name}", self.lwp.number.unwrap_or_default());
        let mut layout = Layout::new([title.trim_end(), "newest state"].map(Column::text));
        for (unit, place) in self.unit_names.iter().zip(&self.lwp.units) {
            layout.row([unit.clone(), in_words(*place)]);
        }
        layout
    }

    fn registers(&self) -> Layout {
        let head = match (&self.fpu, self.fpu_is_older) {
            (None, _) => "no FPU registers in memory",
            (Some(_), true) => "FPU registers in memory (an older copy: the newest are in the CPU)",
            (Some(_), false) => "FPU registers in memory",
        };
        let mut layout = Layout::new([head, ""].map(Column::text));
        let Some(fpu) = &self.fpu else { return layout };
        layout.row([
            "fcw fsw ftw".into(),
            format!("{:04x} {:04x} {:02x}", fpu.fcw, fpu.fsw, fpu.ftw),
        ]);
        layout.row(["mxcsr".into(), format!("{:08x}", fpu.mxcsr)]);
        for (number, st) in fpu.st.iter().enumerate() {
            layout.row([format!("st{number}"), format!("{st:020x}")]);
        }
        for (number, xmm) in fpu.xmm.iter().enumerate() {
            let (name, upper) = match &fpu.ymm_hi {
                Some(upper) => ("ymm", format!("{:032x}", upper[number])),
                None => ("xmm", String::new()),
            };
            layout.row([format!("{name}{number}"), format!("{upper}{xmm:032x}")]);
        }
        layout
    }
}
