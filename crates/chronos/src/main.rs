//! The `chronos` tool; everything is in the library.

fn main() -> std::process::ExitCode {
    chronos::cli::main()
}
