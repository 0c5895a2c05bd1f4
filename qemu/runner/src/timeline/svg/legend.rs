//! What the signs and bars mean, with how many there are of each.

use svg::node::element::Path;

use super::page::{Page, RIGHT, bar, text, width};
use crate::timeline::style::SIGNS;

impl Page {
    /// What the signs mean, with how many there are, and the programs' colours.
    pub(super) fn legend(&mut self) {
        let mut flow = Flow { x: 14.0, y: self.y };
        for sign in &SIGNS {
            let count = self.counts.get(sign.counter).copied().unwrap_or(0);
            if count > 0 {
                let says = format!("{} ({count})", sign.words);
                let (x, y) = flow.place(16.0 + width(&says));
                let mut sign_only = Path::new().set("d", sign.path(x + 5.0, y - 4.0));
                // Not one of the counted ones.
                sign_only = sign_only.set("class", sign.class().replace(sign.counter, "key"));
                self.add(sign_only);
                self.add(text("", (x + 13.0, y), says));
            }
        }
        let calls = self.counts.get("xcalls").copied().unwrap_or(0);
        if calls > 0 {
            let says = format!("cross-call: a CPU asks for what another one holds ({calls})");
            let (x, y) = flow.place(28.0 + width(&says));
            let arrow = format!("M{:.1},{:.1}h16", x, y - 4.0);
            self.add(
                Path::new()
                    .set("class", "call")
                    .set("d", arrow)
                    .set("marker-end", "url(#tip)"),
            );
            self.add(text("", (x + 26.0, y), says));
        }
        let releases = self.counts.get("releases").copied().unwrap_or(0);
        let live =
            format!("FPU: whose registers, newer than memory; its end is a release ({releases})");
        let mut stays = vec![("stay live c0", live)];
        if self.has_clean {
            stays.push((
                "stay clean c0",
                "FPU: whose registers, and memory equals them".into(),
            ));
        }
        for (class, says) in stays {
            let (x, y) = flow.place(30.0 + width(&says));
            self.add(bar(class, [x, y - 9.0, 20.0, 10.0]));
            self.add(text("", (x + 25.0, y), says));
        }
        self.y = flow.y + 12.0;
    }
}

/// Puts things one after the other, in lines.
struct Flow {
    x: f64,
    y: f64,
}

impl Flow {
    fn place(&mut self, width: f64) -> (f64, f64) {
        if self.x + width > RIGHT && self.x > 14.0 {
            self.x = 14.0;
            self.y += 18.0;
        }
        let at = (self.x, self.y);
        self.x += width + 14.0;
        at
    }
}
