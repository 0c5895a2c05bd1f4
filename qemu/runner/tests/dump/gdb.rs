//! As much of gdb's remote protocol as reads memory. GDB manual, appendix "GDB Remote Serial Protocol", sections "Overview" and
//! "Packets".

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// QEMU answers at most this much at once.
const MOST: usize = 0x800;

/// A connection; the guest stands still while it is open.
pub(crate) struct Gdb {
    stream: BufReader<UnixStream>,
}

impl Gdb {
    pub(crate) fn connect(socket: &Path, patience: Duration) -> Self {
        let stream = UnixStream::connect(socket).expect("QEMU listens");
        stream.set_read_timeout(Some(patience)).expect("a limit");
        let mut gdb = Self {
            stream: BufReader::new(stream),
        };
        // A thread's page tables are those that memory is read by: the first CPU's, which runs.
        let stopped = gdb.ask("?");
        assert!(
            stopped.starts_with('T') || stopped.starts_with('S'),
            "{stopped}"
        );
        assert_eq!(gdb.ask("Hg1"), "OK");
        gdb
    }

    /// Reads `bytes` bytes.
    pub(crate) fn read(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < bytes {
            let n = (bytes - all.len()).min(MOST);
            let at = address + all.len() as u64;
            let answer = self.ask(&format!("m{at:x},{n:x}"));
            assert_eq!(answer.len(), 2 * n, "{n} bytes at {at:#x}: {answer}");
            let digits = answer.as_bytes().chunks(2);
            all.extend(digits.map(|pair| {
                let text = std::str::from_utf8(pair).expect("digits");
                u8::from_str_radix(text, 16).expect("digits")
            }));
        }
        all
    }

    pub(crate) fn u64(&mut self, address: u64) -> u64 {
        let bytes = self.read(address, 8);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    pub(crate) fn detach(mut self) {
        assert_eq!(self.ask("D"), "OK");
    }

    /// Sends a packet and returns the answer; a stop that nobody asked about is no answer.
    fn ask(&mut self, packet: &str) -> String {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stream.get_mut(), "${packet}#{sum:02x}").expect("QEMU listens");
        loop {
            let answer = self.receive();
            self.stream.get_mut().write_all(b"+").expect("QEMU listens");
            let is_stop = answer.starts_with('T') || answer.starts_with('S');
            if !is_stop || packet == "?" {
                return answer;
            }
        }
    }

    /// Receives one packet, and checks its sum.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => text.push(byte),
            }
        }
        let sum = [self.byte(), self.byte()];
        let sum = u8::from_str_radix(std::str::from_utf8(&sum).expect("digits"), 16);
        let seen = text.iter().copied().fold(0u8, u8::wrapping_add);
        assert_eq!(sum.expect("digits"), seen, "the packet's sum");
        String::from_utf8(text).expect("text")
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("QEMU answers");
        byte[0]
    }
}
