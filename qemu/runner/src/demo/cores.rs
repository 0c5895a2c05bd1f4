//! Core files of processes that a signal ended, put together from the lines of the serial port.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::session::Session;
use crate::error::{During, Result};
use crate::place;
use crate::protocol::CorePart;

/// Longer than any that a guest of this size can write.
const MOST_BYTES: u64 = 1 << 30;

/// The core files of a run, by job and process.
#[derive(Debug, Default)]
pub(crate) struct Cores(BTreeMap<(usize, u64), Core>);

#[derive(Debug, Default)]
struct Core {
    bytes: u64,
    pieces: Vec<(u64, Vec<u8>)>,
    is_complete: bool,
}

/// A core file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Whose: for people.
    pub(super) whose: String,
    pub(super) path: PathBuf,
}

impl Cores {
    /// Takes in a part; `None` if it does not belong to anything.
    pub(super) fn take(&mut self, job: usize, pid: u64, part: CorePart) -> Option<()> {
        let key = (job, pid);
        match part {
            CorePart::Begin(bytes) if bytes <= MOST_BYTES => {
                let core = Core {
                    bytes,
                    ..Core::default()
                };
                self.0.insert(key, core).is_none().then_some(())
            }
            CorePart::Begin(_) => None,
            CorePart::Piece(at, bytes) => {
                let core = self.0.get_mut(&key)?;
                let end = at.checked_add(bytes.len() as u64)?;
                (end <= core.bytes).then(|| core.pieces.push((at, bytes)))
            }
            CorePart::End => {
                self.0.get_mut(&key)?.is_complete = true;
                Some(())
            }
        }
    }
}

/// Writes the complete core files of a run to the folder of the demo, and tells of the others.
pub(super) fn write(session: &Session) -> Result<(Vec<Written>, Vec<String>)> {
    let dir = place::target("demo");
    let (mut written, mut problems) = (Vec::new(), Vec::new());
    for (&(job, pid), core) in &session.cores.0 {
        let Some(job) = session.jobs.get(&job) else {
            continue;
        };
        let whose = format!("{}, copy {}, process {pid}", job.name, job.copy);
        if !core.is_complete {
            problems.push(format!("the core file of {whose} is cut off"));
            continue;
        }
        fs::create_dir_all(&dir).during(dir.display())?;
        let path = dir.join(format!("{}.{}.{pid}.core", job.name, job.copy));
        let file = File::create(&path).during(path.display())?;
        file.set_len(core.bytes).during(path.display())?;
        for (at, bytes) in &core.pieces {
            file.write_all_at(bytes, *at).during(path.display())?;
        }
        written.push(Written { whose, path });
    }
    Ok((written, problems))
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::session;
    use super::write;

    #[test]
    fn pieces_come_to_their_places_and_the_rest_is_zero() {
        let run = session(
            "@job 3 cores-test 1\n@core 3 9 begin 6\n@core 3 9 at 4 6162\n@core 3 9 at 0 63\n@core 3 9 end",
        );
        assert_eq!(run.garbled, Vec::<String>::new());
        let (written, problems) = write(&run).expect("it can be written");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].whose, "cores-test, copy 1, process 9");
        let name = written[0].path.file_name().expect("a name");
        assert_eq!(name, "cores-test.1.9.core");
        let bytes = std::fs::read(&written[0].path).expect("a file");
        assert_eq!(bytes, b"c\0\0\0ab");
        std::fs::remove_file(&written[0].path).expect("it was there");
    }

    #[test]
    fn a_core_file_without_its_end_is_told_and_not_written() {
        let run = session("@job 3 cores-cut 0\n@core 3 9 begin 6\n@core 3 9 at 4 6162");
        let (written, problems) = write(&run).expect("nothing is written");
        assert_eq!(written, []);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("cores-cut, copy 0, process 9"));
    }

    #[test]
    fn parts_that_belong_nowhere_are_garbled() {
        for text in [
            "@core 3 9 begin 6",
            "@job 3 a 0\n@core 3 9 at 0 61",
            "@job 3 a 0\n@core 3 9 end",
            "@job 3 a 0\n@core 3 9 begin 6\n@core 3 9 at 5 6162",
            "@job 3 a 0\n@core 3 9 begin 6\n@core 3 9 begin 6",
            "@job 3 a 0\n@core 3 9 begin 99999999999",
        ] {
            assert_eq!(session(text).garbled.len(), 1, "{text}");
        }
    }
}
