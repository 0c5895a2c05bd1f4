//! Everything that can be wrong with a guest: one line says what, and the exit status is 1.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use pcu9_kpcpu::{Live, LiveError, QmpError, Way};

use super::{boot, of, pcustat, run};

/// Runs it, and returns the one line that it complains with.
fn refused(command: &mut Command) -> String {
    let (status, said, complaints) = run(command);
    assert_eq!((status, said.as_str()), (1, ""), "{complaints}");
    assert_eq!(complaints.lines().count(), 1, "{complaints}");
    let line = complaints.trim_end().strip_prefix("error: ");
    line.unwrap_or_else(|| panic!("{complaints}")).to_owned()
}

#[track_caller]
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}

#[test]
fn a_wrong_socket() {
    boot(1, |guest| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let ask = || of(path.clone(), guest.kernel().into());
        says(&refused(&mut ask()), &["dump ", "No such file"]);
        // Whoever made it has gone.
        drop(UnixListener::bind(&path).expect("a socket"));
        says(&refused(&mut ask()), &["guest ", "nobody listens"]);
        fs::remove_file(&path).expect("removed");
        // Somebody else is there, and speaks, says nothing, or goes away.
        for (said, parts) in [
            (
                Some(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]),
                &["not QEMU's control socket", "HTTP/1.1 400"][..],
            ),
            (
                Some(b"{\"hello\":1}\n"),
                &["not QEMU's control socket", "hello"],
            ),
            (Some(b""), &["it was closed"]),
            (None, &["no answer within 5 s", "one program at a time"]),
        ] {
            let listener = UnixListener::bind(&path).expect("a socket");
            thread::scope(|scope| {
                let answer = scope.spawn(|| {
                    let (mut stream, _) = listener.accept().expect("it calls");
                    if let Some(said) = said {
                        stream.write_all(said).expect("it listens");
                        return None;
                    }
                    Some(stream)
                });
                says(&refused(&mut ask()), parts);
                drop(answer.join());
            });
            fs::remove_file(&path).expect("removed");
        }
    });
}

#[test]
fn a_socket_that_somebody_else_holds() {
    boot(1, |guest| {
        let _held = Live::connect(&guest.socket(), None).expect("the first");
        says(
            &refused(&mut pcustat(guest)),
            &["no answer within 5 s", "another one may be connected"],
        );
    });
}

#[test]
fn a_wrong_kernel() {
    boot(1, |guest| {
        // Of another build: an instruction's byte in the build id.
        let file = fs::read(guest.kernel()).expect("the kernel");
        let at = file.windows(4).position(|bytes| bytes == b"GNU\0");
        let at = at.expect("a build id") + 4;
        let mut other = file.clone();
        other[at] ^= 0xff;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("other");
        fs::write(&path, other).expect("written");
        says(
            &refused(&mut of(guest.socket(), path)),
            &["the image is of another kernel: its build id is "],
        );
        let none = dir.path().join("none");
        says(
            &refused(&mut of(guest.socket(), none.clone())),
            &["kernel ", "none", "No such file"],
        );
        fs::write(&none, "text").expect("written");
        says(
            &refused(&mut of(guest.socket(), none)),
            &["kernel ", "not an x86-64 ELF"],
        );
        // Without one: there is none beside the socket.
        let mut alone = Command::new(env!("CARGO_BIN_EXE_pcustat"));
        says(
            &refused(alone.arg(guest.socket())),
            &["its kernel's file is needed", "qmp.kernel", "--kernel FILE"],
        );
    });
}

/// Is the test run by root, whom permissions do not stop?
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program as a user who may not do much.
fn as_nobody(command: &Command) -> Command {
    let mut as_other = Command::new("setpriv");
    as_other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    as_other.arg(command.get_program()).args(command.get_args());
    as_other
}

/// Everybody may read it.
fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

#[test]
fn no_permission() {
    boot(1, |guest| {
        // The program, the kernel and the socket are where everybody gets at them; the memory file is the runner's own.
        let dir = tempfile::tempdir().expect("a directory");
        open_to_all(dir.path(), 0o755);
        let (program, kernel) = (dir.path().join("pcustat"), dir.path().join("kernel"));
        // By another process: a child that another test starts may hold what this one writes, and a file that is written
        // is not executed.
        let mut install = Command::new("install");
        install.args(["-m", "755", env!("CARGO_BIN_EXE_pcustat")]);
        assert!(install.arg(&program).status().expect("it runs").success());
        fs::copy(guest.kernel(), &kernel).expect("copied");
        open_to_all(&kernel, 0o644);
        if !is_root() {
            // What is one's own can be forbidden.
            open_to_all(&kernel, 0o000);
            let said = refused(&mut of(guest.socket(), kernel));
            says(&said, &["kernel ", "Permission denied"]);
            open_to_all(guest.dir(), 0o000);
            let said = refused(&mut pcustat(guest));
            open_to_all(guest.dir(), 0o700);
            says(&said, &["Permission denied"]);
            return;
        }
        let mut command = Command::new(&program);
        command.arg(guest.socket()).arg("--kernel").arg(&kernel);
        says(&refused(&mut as_nobody(&command)), &["Permission denied"]);
        open_to_all(guest.dir(), 0o755);
        says(
            &refused(&mut as_nobody(&command)),
            &["guest ", "Permission denied"],
        );
        open_to_all(&guest.socket(), 0o777);
        says(
            &refused(&mut as_nobody(&command)),
            &["the guest's memory file /proc/", "Permission denied"],
        );
        let (status, _, complaints) = run(&mut command);
        assert_eq!((status, complaints.as_str()), (0, ""));
    });
}

#[test]
fn memory_in_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("qmp");
    let argument = format!("unix:{},server=on,wait=off", socket.display());
    let file = dir.path().join("memory");
    let object = |share| {
        format!(
            "memory-backend-file,id=m,size=64M,mem-path={},share={share}",
            file.display()
        )
    };
    for share in [None, Some("off"), Some("on")] {
        let program = std::env::var_os("PCU9_QEMU").unwrap_or("qemu-system-x86_64".into());
        let mut qemu = Command::new(program);
        qemu.args([
            "-S", "-display", "none", "-nic", "none", "-m", "64M", "-qmp", &argument,
        ]);
        if let Some(share) = share {
            qemu.args(["-object", &object(share), "-machine", "memory-backend=m"]);
        }
        let mut qemu = qemu
            .spawn()
            .expect("QEMU is there: other tests have run it");
        let connect = |way| {
            let mut tries = 0..500;
            loop {
                match Live::connect(&socket, way) {
                    Err(LiveError::Qmp(QmpError::Io(_) | QmpError::Nobody))
                        if tries.next().is_some() =>
                    {
                        thread::sleep(std::time::Duration::from_millis(20));
                    }
                    answer => return answer,
                }
            }
        };
        let any = connect(None).expect("there is a way").way();
        let by_file = connect(Some(Way::MemoryFile));
        if share == Some("on") {
            assert_eq!(
                (any, by_file.expect("shared").way()),
                (Way::MemoryFile, Way::MemoryFile)
            );
            // A file that is not QEMU's any more.
            fs::File::options()
                .write(true)
                .open(&file)
                .expect("it opens")
                .set_len(1 << 20)
                .expect("cut");
            let error = connect(None).expect_err("too short").to_string();
            says(
                &error,
                &[
                    "memory has 1048576 bytes",
                    "needs 67108864",
                    "not the file that QEMU has",
                ],
            );
        } else {
            assert_eq!(any, Way::Pmemsave);
            let error = by_file.expect_err("no file is shared").to_string();
            says(
                &error,
                &[
                    "in no file that is shared",
                    "memory-backend-file",
                    "share=on",
                    "pmemsave",
                ],
            );
        }
        qemu.kill().expect("it runs");
        qemu.wait().expect("it ends");
        fs::remove_file(&socket).expect("QEMU's socket is left");
    }
}
