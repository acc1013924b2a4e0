//! `completions`.

use anyhow::Result;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::exit::Exit;
use crate::output;

/// Arguments of `completions`.
#[derive(Args)]
#[command(after_help = "\
  bash        gpu-autoscaler completions bash > /etc/bash_completion.d/gpu-autoscaler
  zsh         gpu-autoscaler completions zsh > \"${fpath[1]}/_gpu-autoscaler\"
  fish        gpu-autoscaler completions fish > ~/.config/fish/completions/gpu-autoscaler.fish
  powershell  gpu-autoscaler completions powershell >> $PROFILE")]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: For,
}

/// Shells that are known.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// Prints the completions of all commands and flags.
pub fn run(args: &CompletionsArgs) -> Result<Exit> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
        For::Powershell => Shell::PowerShell,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut crate::Args::command(), "gpu-autoscaler", &mut text);
    output::print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}
