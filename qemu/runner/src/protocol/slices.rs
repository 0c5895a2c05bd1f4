//! The line `@slice CPU BEGIN SLICE..`: slices of one CPU, each beginning where the one before it ends.
//!
//! `BEGIN` is the time stamp counter (hexadecimal) at the beginning of the line's first slice. A slice is
//! `TICKS,LWP,WHO[,BITS]`: how long it took (hexadecimal), the LWP's number, `jN` for job N, `k` for a kernel thread or `i`
//! for idle; and of the letters `u` (entered user mode), `f` (trapped for the unit) and `m` (came from another CPU) those
//! that are true.

/// A stretch of one LWP on one CPU between two context switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The time stamp counter at its beginning.
    pub(crate) begin: u64,
    /// The same at its end.
    pub(crate) end: u64,
    /// The LWP's number.
    pub(crate) lwp: u64,
    /// Whose LWP it is.
    pub(crate) who: Who,
    /// It entered user mode.
    pub(crate) user: bool,
    /// It trapped for the unit; with the policy `probe` that is: it used it.
    pub(crate) trapped: bool,
    /// The LWP ran on another CPU before.
    pub(crate) migrated: bool,
}

/// Whose LWP it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// A job's.
    Job(usize),
    /// The kernel's.
    Kernel,
    /// The one that runs when nothing else does.
    Idle,
}

/// Decodes what follows the CPU's number.
pub(super) fn decode(text: &str) -> Option<Vec<Slice>> {
    let mut words = text.split_whitespace();
    let mut now = u64::from_str_radix(words.next()?, 16).ok()?;
    words
        .map(|word| {
            let slice = slice(word, now)?;
            now = slice.end;
            Some(slice)
        })
        .collect()
}

fn slice(word: &str, begin: u64) -> Option<Slice> {
    let mut fields = word.split(',');
    let ticks = u64::from_str_radix(fields.next()?, 16).ok()?;
    let lwp = fields.next()?.parse().ok()?;
    let who = match fields.next()? {
        "k" => Who::Kernel,
        "i" => Who::Idle,
        job => Who::Job(job.strip_prefix('j')?.parse().ok()?),
    };
    let bits = fields.next().unwrap_or_default();
    if fields.next().is_some() || bits.contains(|bit| !"ufm".contains(bit)) {
        return None;
    }
    Some(Slice {
        begin,
        end: begin.checked_add(ticks)?,
        lwp,
        who,
        user: bits.contains('u'),
        trapped: bits.contains('f'),
        migrated: bits.contains('m'),
    })
}

#[cfg(test)]
mod tests {
    use super::{Slice, Who, decode};

    #[test]
    fn slices_follow_each_other() {
        let first = Slice {
            begin: 0x1000,
            end: 0x101f,
            lwp: 3,
            who: Who::Idle,
            user: false,
            trapped: false,
            migrated: false,
        };
        let second = Slice {
            begin: 0x101f,
            end: 0x111f,
            lwp: 12,
            who: Who::Job(7),
            user: true,
            trapped: true,
            migrated: true,
        };
        let third = Slice {
            begin: 0x111f,
            end: 0x1120,
            lwp: 2,
            who: Who::Kernel,
            ..first
        };
        assert_eq!(
            decode("1000 1f,3,i 100,12,j7,ufm 1,2,k"),
            Some(vec![first, second, third])
        );
        assert_eq!(decode("1000"), Some(vec![]));
    }

    #[test]
    fn damaged_slices_are_refused() {
        for text in [
            "",
            "x 1,1,k",
            "10 1,1",
            "10 1,1,j",
            "10 1,1,k,x",
            "10 1,1,k,u,f",
            "10 g,1,k",
            "10 ffffffffffffffff,1,k",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
