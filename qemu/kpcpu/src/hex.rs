//! Numbers in JSON as hexadecimal text: readers of JSON keep 53 bits of a number, addresses and registers have more.

use std::fmt::Write;

use serde::{Serialize, Serializer};

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
pub(crate) fn number<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:#x}"))
}

pub(crate) fn numbers<const N: usize, S: Serializer>(
    values: &[u128; N],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|value| format!("{value:#x}")))
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
pub(crate) fn optional_numbers<const N: usize, S: Serializer>(
    values: &Option<[u128; N]>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let texts = values.map(|values| values.map(|value| format!("{value:#x}")).to_vec());
    texts.serialize(to)
}

pub(crate) fn bytes<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(bytes))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
