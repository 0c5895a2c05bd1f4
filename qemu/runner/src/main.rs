//! The program behind `cargo demo`, `cargo boot` and `cargo verify`.

fn main() -> std::process::ExitCode {
    pcu9_runner::main()
}
