//! Given the bytes that a real Asterisk 22 sent (`captures/`, one file a connection), when a peer sends them to the
//! sidecar, cut in two at any byte, then the answer does not depend on the cut. As recorded, with keys that queuewarden
//! does not know, they are refused; with queuewarden's keys they get the decision of the line dialect.

use std::fs;
use std::io::Write;

use crate::stories::fixtures::{ORGANIZATION, by_line};
use crate::support::{Folder, Sidecar, close_our_side, connect, project, read_to_end, variables, wait_until};

/// One recorded connection of Asterisk.
struct Recording {
    name: String,
    environment: String,
    replies: String,
}

fn recordings() -> Vec<Recording> {
    let files = fs::read_dir(project().join("tests/stories/captures")).unwrap();
    let mut recordings: Vec<Recording> = files
        .map(|file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let end = text.find("\n\n").expect("an environment ends with an empty line") + 2;
            let (environment, replies) = text.split_at(end);
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Recording { name, environment: environment.to_owned(), replies: replies.to_owned() }
        })
        .collect();
    recordings.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(recordings.len() >= 17, "recordings are missing");
    recordings
}

impl Recording {
    fn account(&self) -> &str {
        let line = self.environment.lines().find_map(|line| line.strip_prefix("agi_accountcode: "));
        line.expect("every recording has an accountcode, which may be empty")
    }

    /// The same call with queuewarden's URL and arguments. The question changes nothing.
    fn with_our_keys(&self) -> String {
        let lines = self.environment.lines().filter(|line| !line.starts_with("agi_arg_") && !line.is_empty());
        let lines = lines
            .map(|line| if line.starts_with("agi_network_script: ") { "agi_network_script: acme/dial" } else { line });
        let kept: String = lines.map(|line| format!("{line}\n")).collect();
        kept + "agi_arg_1: digits=*2211001\nagi_arg_2: queue=600\n\n"
    }

    /// The number of replies that refuse a command.
    fn refusals(&self) -> usize {
        let refuses = |line: &&str| ["510 ", "511 ", "520-"].iter().any(|code| line.starts_with(code));
        self.replies.lines().filter(refuses).count()
    }
}

/// Plays a call: sends environment and replies in these pieces. Returns the verdict and the reason.
fn play(sidecar: &Sidecar, mut pause: impl FnMut(), environment: &[&str], replies: &[&str]) -> (String, String) {
    let mut stream = connect(sidecar.address("fastagi"));
    for piece in environment {
        stream.write_all(piece.as_bytes()).unwrap();
        pause();
    }
    let received = read_to_end(&mut stream);
    assert!(received.lines().last().is_some_and(|line| line.starts_with("SET VARIABLE QW_VERDICT")), "{received:?}");
    for piece in replies {
        stream.write_all(piece.as_bytes()).unwrap();
        pause();
    }
    close_our_side(&stream);
    let mut set = variables(&received);
    (set.remove("QW_VERDICT").unwrap(), set.remove("QW_REASON").unwrap())
}

#[test]
fn recorded_asterisk_calls_are_understood_wherever_they_are_cut() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let mut line = sidecar.line();
    let mut elsewhere = sidecar.line();
    let mut pause = || assert_eq!(elsewhere.ask("ping"), "pong");
    let mut refusals = 0;
    for recording in recordings() {
        let decided = match recording.account() {
            "" => ("DENY".to_owned(), "missing_key".to_owned()),
            account => {
                let answer = by_line(&mut line, "acme", &format!("{account} *2211001 queue=600"));
                let mut words = answer.split(' ').map(str::to_owned);
                (words.next().unwrap().to_ascii_uppercase(), words.next().unwrap())
            }
        };
        let refused = ("DENY".to_owned(), "malformed".to_owned());
        for (environment, expected) in [(recording.environment.clone(), refused), (recording.with_our_keys(), decided)]
        {
            let name = &recording.name;
            for cut in 0..environment.len() {
                let (first, second) = environment.split_at(cut);
                let answer = play(&sidecar, &mut pause, &[first, second], &[]);
                assert_eq!(answer, expected, "{name} cut at {cut}");
            }
            for cut in 0..=recording.replies.len() {
                let (first, second) = recording.replies.split_at(cut);
                let answer = play(&sidecar, &mut pause, &[&environment], &[first, second]);
                assert_eq!(answer, expected, "{name}, replies cut at {cut}");
                refusals += recording.refusals();
            }
        }
    }
    let series = r#"queuewarden_protocol_errors_total{dialect="fastagi",reason="verdict_refused"}"#;
    wait_until("the refusals to be counted", || format!("{}", sidecar.metric(series)) == format!("{refusals}"));
}
