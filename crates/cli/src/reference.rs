//! `docs/cli.md`: the help of every command, as a page.

use clap::CommandFactory;
use expect_test::expect_file;

/// What stands before the commands.
const INTRO: &str = "\
# Command line

Written by `UPDATE_EXPECT=1 cargo test -p gpu-autoscaler`; the text is that of `--help`.

Standard output is data, standard error is talk.
`-o json` and `-o yaml` carry exact amounts as decimals in text, shares from 0 to 1, and `null` for what is not known; their forms are in [schema/](schema/).
Tables fit the terminal, or `COLUMNS` where that is set: names lose their middle, sentences their end, numbers nothing; `-o wide` shortens nothing, and neither does a table in a pipe.

## Before anything is installed

```bash
gpu-autoscaler doctor                                        # what works on the way to a number
gpu-autoscaler status --prometheus-url http://127.0.0.1:9090
gpu-autoscaler optimize --exporter gpu-node-a=http://10.0.0.7:9400/metrics
```

The kubeconfig needs these rights, and no other:

```yaml
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: gpu-autoscaler-reader }
rules:
  - { apiGroups: [''], resources: [nodes, pods, events], verbs: [get, list] }
  - { apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list] }
  - { apiGroups: [''], resources: [persistentvolumeclaims, persistentvolumes], verbs: [get, list] }
  - apiGroups: [storage.k8s.io]
    resources: [storageclasses, csidrivers, csinodes]
    verbs: [get, list]
  - apiGroups: [resource.k8s.io]
    resources: [resourceclaims, resourceslices, deviceclasses]
    verbs: [get, list]
  - { apiGroups: [gpu-autoscaler.io], resources: ['*'], verbs: [get, list] }
  # For `doctor` to compare releases.
  - { apiGroups: [apps], resources: [deployments], verbs: [list] }
```

Without the last six rules everything works with less: what could not be read is named, and the exit status is 3.
";

/// The page.
fn page() -> String {
    let mut text = INTRO.to_owned();
    let mut command = crate::Args::command().term_width(100);
    command.build();
    text.push_str("\n## All commands\n");
    text.push_str(&block(&mut command));
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names {
        let Some(part) = command.find_subcommand_mut(&name) else { continue };
        section(part, &format!("gpu-autoscaler {name}"), &mut text);
    }
    text
}

fn section(command: &mut clap::Command, name: &str, text: &mut String) {
    text.push_str(&format!("\n## `{name}`\n{}", block(command)));
    let parts: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for part in parts {
        if let Some(below) = command.find_subcommand_mut(&part) {
            section(below, &format!("{name} {part}"), text);
        }
    }
}

fn block(command: &mut clap::Command) -> String {
    let help = command.render_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    format!("\n```text\n{}\n```\n", lines.join("\n"))
}

#[test]
fn the_page_of_the_command_line_is_that_of_its_help() {
    crate::Args::command().debug_assert();
    expect_file!["../../../docs/cli.md"].assert_eq(&page());
}
