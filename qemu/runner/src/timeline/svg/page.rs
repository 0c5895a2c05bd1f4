//! The page that everything is drawn on.

use std::collections::BTreeMap;

use svg::Document;
use svg::node::element::{
    Definitions, Description, Group, Line, Marker, Path, Rectangle, Style, Text,
};

use crate::timeline::colour::Colours;
use crate::timeline::style::sheet;

/// The page's width, and where the lanes begin and end on it.
pub(super) const WIDTH: f64 = 1180.0;
pub(super) const LEFT: f64 = 104.0;
pub(super) const RIGHT: f64 = 1162.0;
/// How wide a letter is, about.
pub(super) const LETTER: f64 = 6.3;

/// What has been drawn so far.
pub(super) struct Page {
    pub(super) colours: Colours,
    pub(super) counts: BTreeMap<&'static str, usize>,
    /// A stretch is drawn in which memory equals the registers.
    pub(super) has_clean: bool,
    /// The groups that are open, each in the one before.
    groups: Vec<Group>,
    /// Where the next thing goes.
    pub(super) y: f64,
}

impl Page {
    pub(super) fn new() -> Self {
        Self {
            colours: Colours::default(),
            counts: BTreeMap::new(),
            has_clean: false,
            groups: vec![Group::new()],
            y: 18.0,
        }
    }

    pub(super) fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        if let Some(group) = self.groups.pop() {
            self.groups.push(group.add(node));
        }
    }

    /// Draws what `draw` draws as a group of a class.
    pub(super) fn group(&mut self, class: &str, draw: impl FnOnce(&mut Self)) {
        self.groups.push(Group::new().set("class", class));
        draw(self);
        if let Some(group) = self.groups.pop() {
            self.add(group);
        }
    }

    pub(super) fn finish(self, command: &str) -> String {
        let body = self.groups.into_iter().next().unwrap_or_default();
        let tip = Marker::new()
            .set("id", "tip")
            .set("viewBox", "0 0 8 8")
            .set("refX", 7)
            .set("refY", 4)
            .set("markerWidth", 9)
            .set("markerHeight", 9)
            .set("markerUnits", "userSpaceOnUse")
            .set("orient", "auto")
            .add(
                Path::new()
                    .set("class", "tip")
                    .set("d", "M0,0.5L8,4L0,7.5z"),
            );
        let document = Document::new()
            .set("viewBox", format!("0 0 {WIDTH} {:.0}", self.y))
            .set("width", WIDTH)
            .set("height", format!("{:.0}", self.y))
            .add(Description::new().add(svg::node::Text::new(command)))
            .add(Style::new(sheet(&self.colours)))
            .add(Definitions::new().add(tip))
            .add(bar("page", [0.0, 0.0, WIDTH, self.y]))
            .add(body);
        format!("{document}\n")
    }
}

pub(super) fn text(class: &str, (x, y): (f64, f64), what: impl Into<String>) -> Text {
    Text::new(what)
        .set("class", class)
        .set("x", format!("{x:.1}"))
        .set("y", format!("{y:.1}"))
}

pub(super) fn bar(class: &str, [x, y, width, height]: [f64; 4]) -> Rectangle {
    Rectangle::new()
        .set("class", class)
        .set("x", format!("{x:.2}"))
        .set("y", format!("{y:.1}"))
        .set("width", format!("{width:.2}"))
        .set("height", format!("{height:.1}"))
}

pub(super) fn line(class: &str, [x1, y1, x2, y2]: [f64; 4]) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", format!("{x1:.2}"))
        .set("y1", format!("{y1:.1}"))
        .set("x2", format!("{x2:.2}"))
        .set("y2", format!("{y2:.1}"))
}

#[expect(clippy::cast_precision_loss, reason = "a few letters")]
pub(super) fn width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}
