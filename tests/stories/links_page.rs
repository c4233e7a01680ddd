//! Given a PBX with members on the first day, when an operator follows config/links/README.md, then every command
//! prints what the page shows. The PBX is a model of Asterisk; times, ports and the operator are those of the test.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::model_asterisk::{ModelAsterisk, ModelMember};
use crate::support::{Folder, Sidecar, project, wait_until};

const PAGE: &str = "config/links/README.md";

/// The blocks of the page in this language, without their indentation.
fn blocks(language: &str) -> VecDeque<String> {
    let page = fs::read_to_string(project().join(PAGE)).unwrap();
    let (mut blocks, mut open) = (VecDeque::new(), None);
    for line in page.lines().map(str::trim_start) {
        open = match (open.take(), line.strip_prefix("```")) {
            (None, Some(opened)) => Some((opened == language, String::new())),
            (None, None) => None,
            (Some((true, text)), Some(_)) => {
                blocks.push_back(text);
                None
            }
            (Some((false, _)), Some(_)) => None,
            (Some((is_wanted, text)), None) => Some((is_wanted, text + line + "\n")),
        };
    }
    blocks
}

/// The link of the page, to this Asterisk and with a short interval, changed by `change`.
fn start(asterisk: &ModelAsterisk, change: impl Fn(String) -> String) -> (Folder, Sidecar) {
    let folder = Folder::demo().durable();
    let link = change(blocks("toml").pop_front().unwrap()).replace("127.0.0.1:5038", &asterisk.address.to_string());
    folder.write("ami.secret", "s3cret\n");
    let process = folder.read("queuewarden.toml") + &link + "poll_interval_seconds = 1\n";
    folder.write("queuewarden.toml", &process);
    let sidecar = Sidecar::start(&folder);
    let is_polled = || sidecar.metric("queuewarden_link_last_poll_timestamp_seconds{link=\"pbx-1\"}") > 0.0;
    wait_until("the first poll", is_polled);
    (folder, sidecar)
}

/// Times and ports replaced. What the model of Asterisk cannot do is left out.
fn comparable(text: &str) -> String {
    let is_time = |text: &str| text.len() >= 20 && text.as_bytes()[10] == b'T' && text.as_bytes()[19] == b'Z';
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with("refused: "));
    let same = |line: &str| -> String {
        let word = |word: &str| match word {
            word if word.is_ascii() && is_time(word) => format!("TIME{}", &word[20..]),
            word if word.starts_with("127.0.0.1:") => "ADDRESS".to_owned(),
            word if word.starts_with("operator:") => "OPERATOR".to_owned(),
            word => word.to_owned(),
        };
        line.split(' ').map(|one| word(one.trim_end_matches(')'))).collect::<Vec<_>>().join(" ") + "\n"
    };
    lines.map(same).collect()
}

/// Executes every command of the block and compares its output.
fn play(folder: &Folder, block: &str) {
    let binary = Path::new(env!("CARGO_BIN_EXE_queuewarden")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    for part in block.split("$ ").filter(|part| !part.is_empty()) {
        let (command, expected) = part.split_once('\n').unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).env("PATH", &path).env("QUEUEWARDEN_CONFIG", folder.path());
        let printed = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        assert_eq!(comparable(&printed), comparable(expected), "{command}\n{printed}");
    }
}

fn members(asterisk: &ModelAsterisk, names: &[&str]) {
    for name in names {
        asterisk.add("600", name, ModelMember::dynamic(), false);
    }
}

#[test]
fn the_first_day_is_as_the_page_shows_it() {
    let mut shown = blocks("console");
    assert_eq!(shown.len(), 3, "{PAGE}");
    let asterisk = ModelAsterisk::with_queues(&["600", "601", "602"]);
    members(&asterisk, &["PJSIP/1001", "PJSIP/1002", "Local/7@office"]);
    let (folder, sidecar) = start(&asterisk, |link| link);
    play(&folder, &shown.pop_front().unwrap());
    let adopting = shown.pop_front().unwrap();
    let (adopt, afterwards) = adopting.split_once("$ queuewarden links show").unwrap();
    play(&folder, adopt);
    let confirmed = || sidecar.metric("queuewarden_link_members{link=\"pbx-1\",state=\"confirmed\"}") > 0.0;
    wait_until("the next poll", confirmed);
    play(&folder, &format!("$ queuewarden links show{afterwards}"));
    assert_eq!(asterisk.members("600").len(), 3, "nothing was removed");
    drop(sidecar);

    let asterisk = ModelAsterisk::with_queues(&["600", "601", "602"]);
    members(&asterisk, &["PJSIP/1002", "PJSIP/2001", "PJSIP/2002", "PJSIP/3001"]);
    let (folder, sidecar) = start(&asterisk, |link| link.replace("members = \"observe\"", "members = \"enforce\""));
    play(&folder, &shown.pop_front().unwrap());
    wait_until("the removals", || asterisk.members("600").is_empty());
    drop(sidecar);
}
