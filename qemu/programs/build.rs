//! Tells the linker what kind of file a ring-3 program is: a static ELF64 at fixed addresses.
//!
//! `-static` would say less: nothing shared is linked under the profile `program`, so the file is static without it, and
//! with it an ordinary `cargo build --workspace`, which links `std` (see `src/lib.rs`), would fail.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in [
        // No C start-up files: `_start` is in the program itself.
        "-nostartfiles",
        // ET_EXEC: the loader relocates nothing.
        "-no-pie",
        // No interpreter: the kernel enters the program, not ld.so.
        "-Wl,--no-dynamic-linker",
        // Code, constants and variables never share a page, so a kernel can map each with only the rights it needs.
        "-Wl,-z,separate-code",
        "-Wl,-z,noexecstack",
        "-Wl,-z,norelro",
        "-Wl,--build-id=none",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
        println!("cargo:rustc-link-arg-examples={argument}");
    }
}
