//! Given an installed queuewarden, when an operator prints help, shell completions and manual pages, then each covers
//! every command.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use clap::Parser as _;
use queuewarden::cli::Arguments;

use crate::support::run;

fn commands() -> Vec<String> {
    let help = run(&["help"]).1;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A description that is wrapped goes on in the next line, which is indented further.
    let first_lines = listed.filter(|line| !line.starts_with("   "));
    let named = first_lines.map(|line| line.split_whitespace().next().unwrap().to_owned());
    let named: Vec<String> = named.filter(|name| name != "help").collect();
    assert!(named.len() >= 11, "{help}");
    named
}

#[test]
fn help_says_more_than_the_options() {
    let (status, help) = run(&["--help"]);
    assert!(status.success());
    for part in ["Exit codes:", "Environment:", "Files:", "Examples:", "QUEUEWARDEN_LOG_FORMAT", "78"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    for command in commands() {
        let (status, help) = run(&[&command, "--help"]);
        assert!(status.success() && help.contains("Examples:"), "{command}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 140), "{command}: {help}");
        // Every example is a valid command line.
        let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        for example in examples.filter_map(|line| line.trim().strip_prefix("queuewarden ")) {
            let line = example.split(" > ").next().unwrap().split(" && ").next().unwrap();
            let line = line.split("        ").next().unwrap();
            let words: Vec<String> = line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect();
            // The example is only parsed: some commands do not end by themselves.
            let read = Arguments::try_parse_from(std::iter::once("queuewarden".to_owned()).chain(words));
            assert!(read.is_ok(), "{example}: {}", read.unwrap_err());
        }
    }
}

#[test]
fn completion_knows_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, script) = run(&["completions", shell]);
        assert!(status.success());
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        assert!(script.contains("--config") || script.contains("-l config"), "{shell}");
    }
    assert_eq!(run(&["completions", "cmd"]).0.code(), Some(2));
    // bash completes `queuewarden sess` with the script.
    let script = "source /dev/stdin; COMP_WORDS=(queuewarden sess); COMP_CWORD=1; \
                  _queuewarden queuewarden sess queuewarden; echo \"${COMPREPLY[@]}\"";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("completion");
    fs::write(&path, run(&["completions", "bash"]).1).unwrap();
    let bash = Command::new("bash").args(["-c", script]).stdin(fs::File::open(&path).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "sessions\n", "{}", String::from_utf8_lossy(&bash.stderr));
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let (status, page) = run(&["man"]);
    assert!(status.success() && page.contains(".TH queuewarden 1"), "{page:.200}");
    assert!(page.contains("Exit codes:") && page.contains("QUEUEWARDEN_LOG"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    assert_eq!(run(&["man", "--into", into]).0.code(), Some(0));
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = names.collect();
    for command in commands() {
        assert!(names.contains(&format!("queuewarden-{command}.1")), "{command}: {names:?}");
    }
    assert!(names.contains("queuewarden.1") && names.contains("queuewarden-sessions-ls.1"), "{names:?}");
    let (status, output) = run(&["man", "--into", &format!("{into}/nowhere")]);
    assert_eq!(status.code(), Some(1), "{output}");
}
