//! The examples of README are run: what stands there is what comes out.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use queuewarden::config::load;
use queuewarden::policy::Policy;

use crate::support::{Folder, FreeSwitchPeer, Sidecar, connect, netstring, project};
use crate::tidy::markdown::{Block, blocks};

/// The ports that the shipped configuration listens on; a test takes free ones in their place.
const PORTS: [(&str, &str); 3] = [("line", "4571"), ("fastagi", "4573"), ("admin", "9471")];

/// A folder like that of the project, with the shipped configuration and whatever else the examples of README put in
/// it.
struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&project().join("config"), &folder.path().join("config"));
        Self { folder }
    }

    /// The sidecar on the shipped configuration, on free ports.
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

    /// Writes the files that README shows in full, and lets the shipped ones be.
    fn add_example_files(&self) {
        for block in example_files() {
            let path = if block.text.starts_with("model = ") { "models" } else { "organizations" };
            let name = block.text.lines().next().unwrap().split('"').nth(1).unwrap();
            let path = self.folder.path().join("config").join(path).join(format!("{name}.toml"));
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
            // What a running sidecar keeps there is its own.
            true if ["run", "state"].iter().any(|own| name == *own) => {}
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// The blocks that are whole files: a role model, or an organization.
fn example_files() -> Vec<Block> {
    let whole = |block: &Block| block.language == "toml";
    blocks().into_iter().filter(whole).collect()
}

/// The commands of a block, each with what it prints.
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

#[test]
fn commands_print_what_readme_shows() {
    let checkout = Checkout::new();
    let mut sidecar: Option<Sidecar> = None;
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.language == "console") {
        for (command, shown) in commands(block) {
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
            assert_eq!(printed, shown, "$ {command}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "README shows only {seen} commands");
}

#[test]
fn readme_shows_the_matrices_of_all_shipped_models() {
    let shown: Vec<(String, String)> =
        blocks().iter().filter(|block| block.language == "console").flat_map(commands).collect();
    let (_, printed) = shown.iter().find(|(command, _)| command == "queuewarden models").expect("the matrices");
    for entry in fs::read_dir(project().join("config/models")).unwrap() {
        let model = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let of_model = |line: &str| line.split(' ').next() == Some(&model) && line.contains("everyone");
        assert!(printed.lines().any(of_model), "README lacks the matrix of {model}");
    }
}

/// The text with the shipped ports instead of those that the sidecar has.
fn as_shipped(sidecar: &Sidecar, text: &str) -> String {
    PORTS.iter().fold(text.to_owned(), |text, (name, shipped)| {
        let port = sidecar.address(name).port().to_string();
        text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{shipped}"))
            .replace(&format!("127.0.0.1/{port}"), &format!("127.0.0.1/{shipped}"))
    })
}

/// The command with the ports that the sidecar has instead of the shipped ones.
fn as_bound(sidecar: &Sidecar, command: &str) -> String {
    PORTS.iter().fold(command.to_owned(), |command, (name, shipped)| {
        command.replace(shipped, &sidecar.address(name).port().to_string())
    })
}

#[test]
fn conversations_go_as_readme_shows_them() {
    let checkout = Checkout::new();
    checkout.add_example_files();
    let sidecar = checkout.start();
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.text.starts_with("> ")) {
        assert!(block.text.lines().all(|line| line == ">" || line.starts_with("> ") || line.starts_with("< ")));
        if block.text.starts_with("> agi_") {
            one_question(&sidecar, block);
        } else if block.text.starts_with("> {\"jsonrpc\"") {
            frame_by_frame(connect(Sidecar::start(&Folder::demo()).address("kamailio")), block);
        } else if block.text.starts_with("> {\"verb\"") {
            let (_sidecar, stream) = dialed();
            frame_by_frame(stream, block);
        } else {
            line_by_line(&sidecar, block);
        }
        seen += 1;
    }
    assert!(seen >= 4, "README shows only {seen} conversations");
}

/// Sends each line and waits for the reply that follows it.
fn line_by_line(sidecar: &Sidecar, block: &Block) {
    let mut client = sidecar.line();
    let mut heard = String::new();
    for line in block.text.lines() {
        match line.strip_prefix("> ") {
            Some(said) => {
                client.send(format!("{said}\n").as_bytes());
                heard += &format!("> {said}\n");
            }
            None => heard += &format!("< {}\n", client.line()),
        }
    }
    assert_eq!(heard, block.text, "under {:?}", block.heading);
}

/// A sidecar that dials us, and the connection.
fn dialed() -> (Sidecar, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::demo();
    let process = folder.read("queuewarden.toml");
    folder
        .write("queuewarden.toml", &format!("{process}[connect]\nevapi = [\"{}\"]\n", listener.local_addr().unwrap()));
    let sidecar = Sidecar::start(&folder);
    (sidecar, listener.accept().unwrap().0)
}

/// Sends each line in a netstring and waits for the one that follows it.
fn frame_by_frame(mut stream: TcpStream, block: &Block) {
    let mut heard = String::new();
    for line in block.text.lines() {
        match line.strip_prefix("> ") {
            Some(said) => {
                write!(stream, "{}:{said},", said.len()).unwrap();
                heard += &format!("> {said}\n");
            }
            None => heard += &format!("< {}\n", netstring(&mut stream)),
        }
    }
    assert_eq!(heard, block.text, "under {:?}", block.heading);
}

#[test]
fn freeswitch_is_answered_as_readme_shows_it() {
    let sidecar = Sidecar::start(&Folder::demo());
    let blocks = blocks();
    let block = blocks.iter().find(|block| block.text.starts_with("< connect\n")).expect("a block");
    let (mut peer, mut heard) = (FreeSwitchPeer::ring(&sidecar), "< connect\n<\n".to_owned());
    let said = block.text.lines().filter_map(|line| line.strip_prefix('>'));
    for line in said {
        peer.say(format!("{}\n", line.trim_start()).as_bytes());
        heard += &format!(">{line}\n");
    }
    heard += &peer.commands().lines().map(|line| format!("< {line}").trim_end().to_owned() + "\n").collect::<String>();
    assert_eq!(heard, block.text);
}

/// Sends all lines and hears everything until the sidecar ends its side.
fn one_question(sidecar: &Sidecar, block: &Block) {
    let sides = |side: char| -> String {
        let lines = block.text.lines().filter_map(|line| line.strip_prefix(side));
        lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
    };
    let mut stream = connect(sidecar.address("fastagi"));
    stream.write_all(sides('>').as_bytes()).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, sides('<'), "under {:?}", block.heading);
}

#[test]
fn files_that_readme_shows_load_without_a_warning() {
    let files = example_files();
    assert!(files.len() >= 3, "README shows only {} files", files.len());
    for block in files.iter().filter(|block| block.text.starts_with("organization = ")) {
        let checkout = Checkout::new();
        checkout.add_example_files();
        let organizations = checkout.folder.path().join("config/organizations");
        fs::remove_dir_all(&organizations).unwrap();
        fs::create_dir(&organizations).unwrap();
        fs::write(organizations.join("example.toml"), &block.text).unwrap();
        let loaded = load(&checkout.folder.path().join("config"), &Policy::default());
        let loaded = loaded.unwrap_or_else(|problems| panic!("under {:?}: {problems}", block.heading));
        assert!(loaded.warnings.is_empty(), "under {:?}: {}", block.heading, loaded.warnings);
    }
}

#[test]
fn the_header_of_users_csv_is_the_one_that_loads() {
    let block = blocks().into_iter().find(|block| block.heading == "users_csv").unwrap();
    let folder = Checkout::new();
    let organizations = folder.folder.path().join("config/organizations");
    fs::write(organizations.join("users.csv"), &block.text).unwrap();
    let text = "organization = \"csv\"\nmodel = \"goto\"\nusers_csv = \"users.csv\"\n\
                [[queues]]\nid = \"support\"\nnumber = \"600\"\n[[queues]]\nid = \"sales\"\nnumber = \"601\"\n";
    fs::write(organizations.join("csv.toml"), text).unwrap();
    let policy = load(&folder.folder.path().join("config"), &Policy::default()).unwrap().policy;
    assert_eq!(policy.organization("csv").unwrap().directory.users().count(), block.text.lines().count() - 1);
}
