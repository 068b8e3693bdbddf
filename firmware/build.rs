//! Gives the linker the memory of the board.

use std::{env, fs, path::Path};

/// Board, its flash and its RAM: origin and KiB each.
const BOARDS: [(&str, u32, u32, u32, u32); 4] = [
    ("LM3S6965EVB", 0, 256, 0x2000_0000, 64),
    ("MPS2_AN386", 0, 4096, 0x2000_0000, 4096),
    ("STM32VLDISCOVERY", 0x0800_0000, 128, 0x2000_0000, 8),
    ("MICROBIT", 0, 256, 0x2000_0000, 16),
];

fn main() {
    let chosen: Vec<_> = BOARDS
        .iter()
        .filter(|(board, ..)| env::var_os(format!("CARGO_FEATURE_{board}")).is_some())
        .collect();
    let [(_, flash, flash_size, ram, ram_size)] = chosen[..] else {
        panic!("choose one board by its feature");
    };
    let script = format!(
        "MEMORY {{\n  FLASH : ORIGIN = {flash:#x}, LENGTH = {flash_size}K\n  RAM : ORIGIN = {ram:#x}, LENGTH = {ram_size}K\n}}\n"
    );
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("memory.x"), script).expect("the folder can be written to");
    println!("cargo::rustc-link-search={out}");
    println!("cargo::rerun-if-changed=build.rs");
}
