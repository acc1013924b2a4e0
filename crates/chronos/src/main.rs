//! The `chronos` tool; everything is in the library.

#[cfg(not(target_os = "linux"))]
compile_error!("the tool is there for Linux; for other targets build the library: `--lib`");

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    chronos::cli::main()
}
