//! A colour for each program, light for paper and dark for a dark screen, far from its neighbours'.

use std::collections::BTreeMap;

/// The programs of a picture in the order in which they were met, which is the number of their colour.
#[derive(Debug, Default)]
pub(super) struct Colours(BTreeMap<String, usize>);

impl Colours {
    /// The number of a program's colour.
    pub(super) fn of(&mut self, program: &str) -> usize {
        let next = self.0.len();
        *self.0.entry(program.to_owned()).or_insert(next)
    }

    /// The rules of a style sheet: `.c0{fill:#..}`.
    pub(super) fn rules(&self, [saturation, lightness]: [f64; 2]) -> String {
        let rule = |number: usize| {
            // The golden angle: whatever the number of colours, each is far from the last few.
            #[expect(clippy::cast_precision_loss, reason = "a handful of programs")]
            let hue = (number as f64 * 137.508 + 205.0) % 360.0;
            format!(".c{number}{{fill:{}}}", hex(hue, saturation, lightness))
        };
        (0..self.0.len()).map(rule).collect()
    }
}

/// A colour as `#rrggbb`; hue in degrees, the others from 0 to 1.
fn hex(hue: f64, saturation: f64, lightness: f64) -> String {
    let reach = saturation * lightness.min(1.0 - lightness);
    let channel = |offset: f64| {
        let place = (offset + hue / 30.0) % 12.0;
        let value = lightness - reach * (place - 3.0).min(9.0 - place).clamp(-1.0, 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 255"
        )]
        let byte = (value * 255.0).round() as u8;
        byte
    };
    let [red, green, blue] = [0.0, 8.0, 4.0].map(channel);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::{Colours, hex};

    #[test]
    fn hue_saturation_and_lightness_make_a_colour() {
        assert_eq!(hex(0.0, 1.0, 0.5), "#ff0000");
        assert_eq!(hex(120.0, 1.0, 0.5), "#00ff00");
        assert_eq!(hex(240.0, 0.5, 0.5), "#4040bf");
        assert_eq!(hex(77.0, 0.0, 1.0), "#ffffff");
    }

    #[test]
    fn a_program_keeps_its_colour() {
        let mut colours = Colours::default();
        assert_eq!(
            ["a", "b", "a"].map(|program| colours.of(program)),
            [0, 1, 0]
        );
        assert_eq!(
            colours.rules([0.0, 0.0]),
            ".c0{fill:#000000}.c1{fill:#000000}"
        );
    }
}
