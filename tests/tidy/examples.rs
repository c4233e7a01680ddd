//! Every example of every page is executed: the output of a command, the answers of a conversation, the files that
//! load.
//!
//! A block in `console` is commands behind `$ ` with their output, in a checkout of the page's own. The command
//! `cargo run --release` starts a sidecar there, and so does the comment `<!-- with a running sidecar -->` above a
//! block. A block in `text` or `json` that begins with `> ` or `< ` is a conversation. A block in `toml` is a file that
//! loads. A block that cannot be executed has the comment `<!-- not executed: REASON -->`.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use queuewarden::config::load;
use queuewarden::policy::Policy;

use super::markdown::{Block, Page, pages};
use crate::support::{Folder, FreeSwitchPeer, Sidecar, connect, netstring, project};

/// The ports that the shipped configuration listens on; a test takes free ports instead.
const PORTS: [(&str, &str); 3] = [("line", "4571"), ("fastagi", "4573"), ("admin", "9471")];

/// A copy of the shipped configuration, in a folder like that of the project.
struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&project().join("config"), &folder.path().join("config"));
        Self { folder }
    }

    /// The sidecar on the configuration of the checkout, on free ports.
    fn start(&self) -> Sidecar {
        let file = self.folder.path().join("config/queuewarden.toml");
        let mut text = fs::read_to_string(&file).unwrap();
        for (_, port) in PORTS {
            assert!(text.contains(&format!("\"127.0.0.1:{port}\"")), "the shipped configuration listens on {port}");
            text = text.replace(&format!(":{port}\""), ":0\"");
        }
        fs::write(file, text).unwrap();
        Sidecar::try_start(&self.folder.path().join("config"))
            .unwrap_or_else(|(status, text)| panic!("did not start: {status}: {text}"))
    }

    /// Writes the models and organizations that the page shows, unless a shipped file has the name.
    fn add_example_files(&self, page: &Page) {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            let Some(path) = path_of(block) else { continue };
            let path = self.folder.path().join("config").join(path);
            if !path.exists() {
                fs::write(path, &block.text).unwrap();
            }
        }
    }

    /// What a shell prints for the command, both streams.
    fn shell(&self, command: &str) -> String {
        let binary = Path::new(env!("CARGO_BIN_EXE_queuewarden")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("exec 2>&1; {command}")).current_dir(self.folder.path()).env("PATH", path);
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        match path.is_dir() {
            // The sockets and the state of a sidecar that runs in the project.
            true if ["run", "state"].iter().any(|own| name == *own) => {}
            true => copy(&path, &to.join(name)),
            false => {
                fs::copy(&path, to.join(name)).unwrap();
            }
        }
    }
}

/// The file of the configuration that a block in TOML is; `None` for the file of the process.
fn path_of(block: &Block) -> Option<String> {
    let first = block.text.lines().next().unwrap();
    let folder = match first.split(' ').next().unwrap() {
        "model" => "models",
        "organization" => "organizations",
        _ => return None,
    };
    Some(format!("{folder}/{}.toml", first.split('"').nth(1).unwrap()))
}

// Every block is one of these -----------------------------------------------------------------------------------------

#[derive(Debug, PartialEq, Eq)]
enum Example {
    Commands,
    Line,
    FastAgi,
    FreeSwitch,
    JsonRpc,
    Evapi,
    File,
    Csv,
    /// A grammar, a picture, a line of a log, or a file of another program.
    Illustration,
}

fn kind(block: &Block) -> Example {
    let starts = |start: &str| block.text.starts_with(start);
    match block.language.as_str() {
        "console" => Example::Commands,
        "toml" => Example::File,
        "csv" => Example::Csv,
        "json" if starts("> {\"jsonrpc\"") => Example::JsonRpc,
        "json" if starts("> ") => Example::Evapi,
        "text" if starts("< connect\n") => Example::FreeSwitch,
        "text" if starts("> agi_") => Example::FastAgi,
        "text" if starts("> ") => Example::Line,
        "text" | "json" | "xml" | "ini" | "cfg" => Example::Illustration,
        other => panic!("{}: nothing executes a block in {other:?} under {:?}", block.page, block.heading),
    }
}

/// The blocks of this kind that are executed.
fn executed(page: &Page, wanted: &Example) -> Vec<Block> {
    let blocks = page.blocks().into_iter().filter(|block| block.not_executed().is_none());
    blocks.filter(|block| kind(block) == *wanted).collect()
}

#[test]
fn a_block_that_is_not_executed_says_why() {
    let mut excused = 0;
    for block in pages().iter().flat_map(Page::blocks) {
        match block.not_executed() {
            Some(reason) => {
                assert!(reason.len() > 20, "{}: {reason:?} is too short for a reason", block.page);
                // A story that plays the blocks of the page with a PBX of its own.
                let story = reason.split([' ', ';']).find(|word| word.starts_with("tests/"));
                let plays =
                    |story| fs::read_to_string(project().join(story)).is_ok_and(|text| text.contains(&*block.page));
                excused += usize::from(!story.is_some_and(plays));
            }
            // Fails for a language that nothing executes.
            None => {
                let _kind = kind(&block);
            }
        }
    }
    assert!(excused <= 8, "{excused} blocks are not executed");
}

// Commands ------------------------------------------------------------------------------------------------------------

/// The commands of a block, each with the output that the page shows.
fn commands(block: &Block) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = vec![];
    for line in block.text.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command.to_owned(), String::new())),
            None => commands.last_mut().expect("a block begins with a command").1 += &format!("{line}\n"),
        }
    }
    commands
}

/// A command of a page.
struct Executed {
    block: Block,
    command: String,
    shown: String,
    printed: String,
}

/// Executes the commands of a page, in its order.
fn execute(page: &Page) -> Vec<Executed> {
    let checkout = Checkout::new();
    let mut sidecar: Option<Sidecar> = None;
    let mut done = vec![];
    for block in executed(page, &Example::Commands) {
        if block.comment.as_deref() == Some("with a running sidecar") && sidecar.is_none() {
            sidecar = Some(checkout.start());
        }
        for (command, shown) in commands(&block) {
            let printed = if command == "cargo run --release" {
                let started = sidecar.insert(checkout.start());
                let banner = started.banner.join("\n") + "\n";
                as_shipped(started, &banner)
            } else if let Some(running) = &sidecar {
                as_shipped(running, &checkout.shell(&as_bound(running, &command)))
            } else {
                checkout.shell(&command)
            };
            let printed = printed.replace(&format!("{}/", checkout.folder.path().display()), "");
            done.push(Executed { block: block.clone(), command, shown, printed });
        }
    }
    done
}

/// The page with the output that its commands print now, for `tests/run --write-docs`.
pub fn with_outputs(page: Page) -> String {
    let lines = |block: &Block, text: &str| -> String {
        let start = " ".repeat(block.indent);
        text.lines().map(|line| format!("{start}{line}").trim_end().to_owned() + "\n").collect()
    };
    execute(&page).into_iter().fold(page.text, |text, one| {
        let found = lines(&one.block, &format!("$ {}\n{}", one.command, one.shown));
        text.replacen(&found, &lines(&one.block, &format!("$ {}\n{}", one.command, one.printed)), 1)
    })
}

#[test]
fn commands_print_what_the_pages_show() {
    if super::documents::writes() {
        // The other test writes the outputs.
        return;
    }
    let mut count = 0;
    for page in pages() {
        for one in execute(&page) {
            assert_eq!(one.printed, one.shown, "{}: $ {} (or `tests/run --write-docs`)", page.path, one.command);
            count += 1;
        }
    }
    assert!(count >= 20, "the pages show only {count} commands");
}

/// The text with the shipped ports instead of the ports of the sidecar.
fn as_shipped(sidecar: &Sidecar, text: &str) -> String {
    PORTS.iter().fold(text.to_owned(), |text, (name, shipped)| {
        let port = sidecar.address(name).port().to_string();
        text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{shipped}"))
            .replace(&format!("127.0.0.1/{port}"), &format!("127.0.0.1/{shipped}"))
    })
}

/// The command with the ports of the sidecar instead of the shipped ports.
fn as_bound(sidecar: &Sidecar, command: &str) -> String {
    PORTS.iter().fold(command.to_owned(), |command, (name, shipped)| {
        command.replace(shipped, &sidecar.address(name).port().to_string())
    })
}

// Conversations -------------------------------------------------------------------------------------------------------

#[test]
fn conversations_go_as_the_pages_show_them() {
    let mut count = 0;
    for page in pages() {
        let conversations = executed(&page, &Example::Line);
        if conversations.is_empty() {
            continue;
        }
        let checkout = Checkout::new();
        checkout.add_example_files(&page);
        let sidecar = checkout.start();
        for block in &conversations {
            line_by_line(&sidecar, block);
            count += 1;
        }
    }
    assert!(count >= 7, "the pages show only {count} conversations");
}

/// Sends each line and waits for the reply that follows it. Lines with `>>` and `<<` are of a second connection.
fn line_by_line(sidecar: &Sidecar, block: &Block) {
    let (mut first, mut second) = (sidecar.line(), sidecar.line());
    let mut seen = String::new();
    for line in block.text.lines() {
        // Shown if the test fails: a reply that never comes ends the test without a comparison.
        println!("{}, under {:?}: {line}", block.page, block.heading);
        if let Some(request) = line.strip_prefix("> ") {
            first.send(format!("{request}\n").as_bytes());
            seen += &format!("{line}\n");
        } else if let Some(request) = line.strip_prefix(">> ") {
            second.send(format!("{request}\n").as_bytes());
            seen += &format!("{line}\n");
        } else if line.starts_with("<< ") {
            seen += &format!("<< {}\n", second.line());
        } else {
            seen += &format!("< {}\n", first.line());
        }
    }
    assert_eq!(seen, block.text, "{}, under {:?}", block.page, block.heading);
}

#[test]
fn json_is_answered_as_the_pages_show_it() {
    let mut count = 0;
    for page in pages() {
        for block in executed(&page, &Example::JsonRpc) {
            frame_by_frame(connect(Sidecar::start(&Folder::demo()).address("kamailio")), &block);
            count += 1;
        }
        for block in executed(&page, &Example::Evapi) {
            let (_sidecar, stream) = evapi_connection();
            frame_by_frame(stream, &block);
            count += 1;
        }
    }
    assert_eq!(count, 2, "one example of JSON-RPC and one of evapi");
}

/// A sidecar that connects to a listener of the test, and the connection.
fn evapi_connection() -> (Sidecar, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::demo();
    let process = folder.read("queuewarden.toml");
    folder
        .write("queuewarden.toml", &format!("{process}[connect]\nevapi = [\"{}\"]\n", listener.local_addr().unwrap()));
    let sidecar = Sidecar::start(&folder);
    (sidecar, listener.accept().unwrap().0)
}

/// Sends each line in a netstring and waits for the netstring that follows it.
fn frame_by_frame(mut stream: TcpStream, block: &Block) {
    let mut seen = String::new();
    for line in block.text.lines() {
        match line.strip_prefix("> ") {
            Some(request) => {
                write!(stream, "{}:{request},", request.len()).unwrap();
                seen += &format!("> {request}\n");
            }
            None => seen += &format!("< {}\n", netstring(&mut stream)),
        }
    }
    assert_eq!(seen, block.text, "{}, under {:?}", block.page, block.heading);
}

#[test]
fn asterisk_and_freeswitch_are_answered_as_the_pages_show_it() {
    let sidecar = Sidecar::start(&Folder::demo());
    let pages = pages();
    let found = |wanted: &Example| pages.iter().flat_map(|page| executed(page, wanted)).collect::<Vec<_>>();
    let (fastagi, freeswitch) = (found(&Example::FastAgi), found(&Example::FreeSwitch));
    assert_eq!((fastagi.len(), freeswitch.len()), (1, 1));
    one_question(&sidecar, &fastagi[0]);
    let block = &freeswitch[0];
    let (mut peer, mut seen) = (FreeSwitchPeer::ring(&sidecar), "< connect\n<\n".to_owned());
    for line in block.text.lines().filter_map(|line| line.strip_prefix('>')) {
        peer.say(format!("{}\n", line.trim_start()).as_bytes());
        seen += &format!(">{line}\n");
    }
    seen += &peer.commands().lines().map(|line| format!("< {line}").trim_end().to_owned() + "\n").collect::<String>();
    assert_eq!(seen, block.text, "{}", block.page);
}

/// Sends all lines and reads until the sidecar closes its side.
fn one_question(sidecar: &Sidecar, block: &Block) {
    let side = |start: char| -> String {
        let lines = block.text.lines().filter_map(|line| line.strip_prefix(start));
        lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
    };
    let mut stream = connect(sidecar.address("fastagi"));
    stream.write_all(side('>').as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, side('<'), "{}, under {:?}", block.page, block.heading);
}

/// The tables of the variables stand beside the examples, and hold the same names.
#[test]
fn the_pages_list_the_variables_of_the_answers() {
    let pages = pages();
    let found = |wanted: &Example| pages.iter().find(|page| !executed(page, wanted).is_empty()).unwrap();
    let sidecar = Sidecar::start(&Folder::demo());
    let answer = sidecar.agi_bytes(crate::support::agi_environment("1001", "acme/dial", &["digits=*13600"]).as_bytes());
    let set = answer.lines().map(|line| line.split(' ').nth(2).unwrap().to_owned());
    let set: Vec<String> = set.collect();
    let documented: Vec<String> = first_column(found(&Example::FastAgi), "QW_")
        .into_iter()
        .filter(|name| {
            ["QW_REASON", "QW_ACTION", "QW_QUEUES", "QW_TARGET", "QW_SPY_OPTIONS", "QW_VERDICT"].contains(&&**name)
        })
        .collect();
    assert_eq!(documented, set, "in the order of the answer");
    let variables = [("qw_org", "acme"), ("user_name", "2001"), ("qw_queue", "600")];
    let block = crate::support::channel_block("*2231001", &variables);
    let page = found(&Example::FreeSwitch);
    let documented = [first_column(page, "qw_"), first_column(page, "eavesdrop_")].concat();
    for name in FreeSwitchPeer::ring(&sidecar).ask(&block).into_keys() {
        assert!(documented.contains(&name), "{}: no row of `{name}`", page.path);
    }
}

/// The names in the first cells of the tables that begin so.
fn first_column(page: &Page, start: &str) -> Vec<String> {
    let cells = page.prose().into_iter().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    names.filter(|name| name.starts_with(start)).collect()
}

// Files ---------------------------------------------------------------------------------------------------------------

/// The certificate of an authority.
fn authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap().pem()
}

#[test]
fn the_files_that_the_pages_show_load_without_a_warning() {
    let mut count = 0;
    for page in pages() {
        for block in executed(&page, &Example::File) {
            let checkout = Checkout::new();
            let config = checkout.folder.path().join("config");
            match path_of(&block) {
                // An organization takes the place of the shipped one; a model comes beside the shipped ones.
                Some(path) => {
                    checkout.add_example_files(&page);
                    fs::write(config.join(path), &block.text).unwrap();
                }
                None => {
                    // Not every machine has the user of a PBX.
                    let text = block.text.replace("users = [\"asterisk\"]", "users = [\"root\"]");
                    fs::write(config.join("queuewarden.toml"), text).unwrap();
                    for secret in ["ami.secret", "esl.secret", "pbx-1.token", "pbx-1.next.token"] {
                        crate::support::write_secret(&config.join(secret), &format!("secret-of-{secret}\n"));
                    }
                    let own = rcgen::generate_simple_self_signed(["sidecar.example".to_owned()]).unwrap();
                    fs::write(config.join("sidecar.pem"), own.cert.pem()).unwrap();
                    crate::support::write_secret(&config.join("sidecar.key"), &own.signing_key.serialize_pem());
                    fs::write(config.join("peers-ca.pem"), authority()).unwrap();
                    fs::write(config.join("pbx-ca.pem"), authority()).unwrap();
                }
            }
            let loaded = load(&config, &Policy::default());
            let loaded = loaded.unwrap_or_else(|problems| panic!("{}: {problems}", page.path));
            assert!(loaded.warnings.is_empty(), "{}: {}", page.path, loaded.warnings);
            count += 1;
        }
    }
    assert!(count >= 5, "the pages show only {count} files");
}

#[test]
fn the_csv_file_that_a_page_shows_loads() {
    let pages = pages();
    let blocks: Vec<Block> = pages.iter().flat_map(|page| executed(page, &Example::Csv)).collect();
    assert_eq!(blocks.len(), 1);
    let checkout = Checkout::new();
    let organizations = checkout.folder.path().join("config/organizations");
    fs::write(organizations.join("users.csv"), &blocks[0].text).unwrap();
    let text = "organization = \"csv\"\nmodel = \"goto\"\nusers_csv = \"users.csv\"\n\
                [[queues]]\nid = \"support\"\nnumber = \"600\"\n[[queues]]\nid = \"sales\"\nnumber = \"601\"\n";
    fs::write(organizations.join("csv.toml"), text).unwrap();
    let policy = load(&checkout.folder.path().join("config"), &Policy::default()).unwrap().policy;
    assert_eq!(policy.organization("csv").unwrap().directory.users().count(), blocks[0].text.lines().count() - 1);
}
