//! A bench for the runner: an emulator that is a script, and a program of a few instructions.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A directory with a stand-in emulator, a kernel that nobody reads, and one program.
#[derive(Debug)]
pub(crate) struct Bench(TempDir);

/// What a run of the runner gave.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit status.
    pub(crate) status: i32,
    /// Standard output and then standard error.
    pub(crate) text: String,
    /// The JSON object, if one was asked for and written.
    pub(crate) json: Value,
}

impl Bench {
    /// Makes an emulator that prints `serial` and ends with `status`, or never for -1; and a program `good`.
    ///
    /// The emulator prints the file `serial.POLICY` instead where there is one, and leaves its arguments in `arguments`.
    pub(crate) fn new(serial: &str, status: i32) -> Self {
        // mov eax, 1 (write); mov edi, eax; lea rsi, [rip + 20]; mov edx, 4; syscall;
        // mov eax, 231 (exit_group); xor edi, edi; syscall; "a\nb\n"
        let code = [
            0xb8, 1, 0, 0, 0, 0x89, 0xc7, 0x48, 0x8d, 0x35, 0x10, 0, 0, 0, 0xba, 4, 0, 0, 0, 0x0f,
            0x05, 0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, b'a', b'\n', b'b', b'\n',
        ];
        Self::with_program(&program(&code), serial, status)
    }

    /// The same with a program of the caller's.
    pub(crate) fn with_program(image: &[u8], serial: &str, status: i32) -> Self {
        let bench = Self(tempfile::tempdir().expect("a directory"));
        bench.file("serial", serial.as_bytes());
        bench.file("good", image);
        let end = if status < 0 {
            "exec sleep 60".to_owned()
        } else {
            format!("exit {status}")
        };
        let script = format!(
            "#!/bin/sh\n[ \"$2\" = help ] && exit 0\ncd \"${{0%/*}}\"\necho \"$@\" >arguments\n\
             policy=\"${{*##*policy=}}\"\npolicy=\"${{policy%% *}}\"\n\
             if [ -f \"serial.$policy\" ]; then cat \"serial.$policy\"; else cat serial; fi\n{end}\n"
        );
        bench.file("qemu", script.as_bytes());
        bench
    }

    /// Puts an executable file into the directory and returns its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let (path, plain) = (self.path(name), self.path("plain"));
        fs::write(&plain, content).expect("a file");
        // Another process writes it, so that no thread of this one has it open when it is run.
        let copied = Command::new("install")
            .arg("-D")
            .arg(&plain)
            .arg(&path)
            .status();
        assert!(copied.expect("install runs").success());
        path
    }

    /// Returns the path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }

    /// Returns the text of a file in the directory.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a text file")
    }

    /// Runs the demo with `arguments` and the bench's program.
    pub(crate) fn demo(&self, arguments: &[&str]) -> Ran {
        self.demo_with(arguments, &[])
    }

    /// The same with environment variables.
    pub(crate) fn demo_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let (program, json) = (self.path("good"), self.path("result.json"));
        let mut all = vec!["demo"];
        all.extend(arguments);
        all.extend(["--program", &program, "--json", &json]);
        // Few recorded kernels have one.
        if !arguments.iter().any(|one| one.starts_with("--window")) {
            all.extend(["--window", "none"]);
        }
        self.run(&all, variables)
    }

    /// Runs the runner.
    pub(crate) fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let dir = self.0.path();
        let output = Command::new(env!("CARGO_BIN_EXE_pcu9-runner"))
            .args(arguments)
            .env("PCU9_QEMU", dir.join("qemu"))
            .env("PCU9_KERNEL", dir.join("serial"))
            .env("CARGO_TARGET_DIR", dir.join("target"))
            .envs(variables.iter().copied())
            .output()
            .expect("the runner runs");
        let json = fs::read(dir.join("result.json")).unwrap_or_default();
        let text = [output.stdout, output.stderr].concat();
        Ran {
            status: output.status.code().expect("an exit status"),
            text: String::from_utf8_lossy(&text).into_owned(),
            json: serde_json::from_slice(&json).unwrap_or_default(),
        }
    }
}

/// Builds the smallest static ELF64 program: its headers and `code` in one segment at 4 MiB.
pub(crate) fn program(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend(
        [BASE + HEADERS, 64, 0]
            .into_iter()
            .flat_map(u64::to_le_bytes),
    );
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    file.extend([1u32, 5].into_iter().flat_map(u32::to_le_bytes));
    file.extend(
        [0, BASE, BASE, size, size, 4096]
            .into_iter()
            .flat_map(u64::to_le_bytes),
    );
    file.extend(code);
    file
}
