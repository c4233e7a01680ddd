//! Given an Asterisk that nobody prepared, with eleven phones and three queues, when an operator follows "Five minutes"
//! of config/asterisk/README.md to the letter, then the first dial of 1001 is let in. The steps are read from the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::phone::Phone;
use crate::support::project;

const PHONES: [&str; 11] = ["1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "2001", "3001"];
/// Each queue as Asterisk names it, and its number at the sidecar.
const QUEUES: [(&str, &str); 3] = [("support", "600"), ("sales", "601"), ("night", "602")];

/// One numbered step of the page.
struct PageStep {
    /// The file of `/etc/asterisk` that the step is about. `None`: it is about none.
    file: Option<String>,
    /// What the operator writes into the file. `None`: nothing.
    block: Option<String>,
    /// What the operator runs, without `asterisk -rx`.
    commands: Vec<String>,
}

/// The steps of the page, in its order.
fn page_steps() -> Vec<PageStep> {
    let page = fs::read_to_string(project().join("config/asterisk/README.md")).unwrap();
    let (_, section) = page.split_once("\n## Five minutes\n").unwrap();
    let (section, _) = section.split_once("\n| Global |").unwrap();
    let mut texts: Vec<String> = vec![];
    for line in section.lines().skip_while(|line| !line.starts_with("0. ")) {
        let number = texts.len();
        match line.strip_prefix(&format!("{number}. ")) {
            Some(first) => texts.push(first.to_owned() + "\n"),
            None => writeln!(texts.last_mut().unwrap(), "{}", line.strip_prefix("   ").unwrap_or(line)).unwrap(),
        }
    }
    texts.iter().map(|text| page_step(text)).collect()
}

fn page_step(text: &str) -> PageStep {
    let (before, block) = match text.split_once("```ini\n") {
        None => (text, None),
        Some((before, rest)) => (before, Some(rest.split_once("```").unwrap().0.to_owned())),
    };
    let file = before.split_once("/etc/asterisk/").map(|(_, rest)| rest.split(['`', ' ']).next().unwrap().to_owned());
    let run = text.split("Run `asterisk -rx \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    PageStep { file, block, commands: run.collect() }
}

/// The files of an Asterisk whose phones call each other and whose queues have names; nothing in them is queuewarden's.
fn unprepared(conf: &Path) {
    let lab = project().join("tests/pbx/asterisk/conf");
    for entry in fs::read_dir(lab).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, conf.join(path.file_name().unwrap())).unwrap();
    }
    let write = |file: &str, text: &str| fs::write(conf.join(file), text).unwrap();
    write(
        "extensions.conf",
        "[general]\nstatic = yes\nwriteprotect = yes\nclearglobalvars = no\n[globals]\nTRUNK = PJSIP/trunk\n\
         [phones]\nexten => _[123]XXX,1,Dial(PJSIP/${EXTEN},20)\n",
    );
    let mut pjsip = "[global]\ntype = global\n[udp]\ntype = transport\nprotocol = udp\nbind = 127.0.0.1:@SIP_PORT@\n\
                     [phone](!)\ntype = endpoint\ncontext = phones\ndisallow = all\nallow = ulaw\n\
                     [digest](!)\ntype = auth\nauth_type = userpass\n[address](!)\ntype = aor\nmax_contacts = 2\n"
        .to_owned();
    for phone in PHONES {
        write!(
            pjsip,
            "[{phone}](phone)\naors = {phone}\nauth = {phone}\n\
             [{phone}](digest)\nusername = {phone}\npassword = pw{phone}\n[{phone}](address)\n"
        )
        .unwrap();
    }
    write("pjsip.conf", &pjsip);
    let queues = QUEUES.map(|(name, _)| format!("[{name}]\nstrategy = rrmemory\ntimeout = 10\n"));
    write("queues.conf", &("[general]\nautofill = yes\n".to_owned() + &queues.concat()));
    write(
        "manager.conf",
        "[general]\nenabled = yes\nwebenabled = no\nbindaddr = 127.0.0.1\nport = @AMI_PORT@\n[admin]\nsecret = admin\n\
         read = all\nwrite = all\n",
    );
}

/// Does what the step says. The paths of the page are those of this lab, and the sidecar has a port of its own.
fn follow(lab: &AsteriskLab, step: &PageStep) {
    let etc = lab.etc();
    if let (Some(file), Some(block)) = (&step.file, &step.block) {
        let block = block.replace("/etc/asterisk", etc.to_str().unwrap());
        let block = block.replace("[globals]\n", &format!("[globals]\nQW_SIDECAR = {}\n", lab.fastagi()));
        let each = if block.contains("1001") { &PHONES[..] } else { &PHONES[..1] };
        let mut text = fs::read_to_string(etc.join(file)).unwrap();
        for phone in each {
            text += "\n";
            text += &block.replace("1001", phone);
        }
        fs::write(etc.join(file), text).unwrap();
    }
    for command in &step.commands {
        let output = lab.cli(command);
        assert!(!output.contains("No such"), "{command}: {output}");
    }
    // On a busy machine half a second is too short.
    lab.set_global("QW_WAIT_SECONDS", "5");
}

/// "Name each queue by its number": part of step 3 that the page has in words only.
fn name_queues_by_number(lab: &AsteriskLab) {
    let file = lab.etc().join("queues.conf");
    let text = fs::read_to_string(&file).unwrap();
    let renamed =
        QUEUES.iter().fold(text, |text, (name, number)| text.replace(&format!("[{name}]"), &format!("[{number}]")));
    fs::write(file, renamed).unwrap();
}

fn copy_dialplan(lab: &AsteriskLab) {
    let shipped = project().join("config/asterisk/extensions-queuewarden.conf");
    fs::copy(shipped, lab.etc().join("extensions-queuewarden.conf")).unwrap();
}

fn start(conf: &Path) -> AsteriskLab {
    unprepared(conf);
    AsteriskLab::start_unprepared(conf)
}

/// FIELD C2: right the first time.
#[test]
fn the_first_dial_of_a_newcomer_is_let_in() {
    let conf = tempfile::tempdir().unwrap();
    let lab = start(conf.path());
    let steps = page_steps();
    assert_eq!(steps.len(), 7, "steps 0 to 6");
    copy_dialplan(&lab);
    name_queues_by_number(&lab);
    for step in &steps {
        follow(&lab, step);
    }
    assert_eq!(Phone::new(&lab, "1001", 0).dial("*13600"), 200);
    assert!(lab.is_member("600", "1001"));
    assert_eq!(Phone::new(&lab, "1001", 0).dial("*14600"), 200);
    assert!(!lab.is_member("600", "1001"));
}

/// FIELD C2: a step that is missing or wrong shows its cause: the page says what the phone gets and what the log says.
#[test]
fn each_missing_step_shows_its_cause() {
    let conf = tempfile::tempdir().unwrap();
    let mut lab = start(conf.path());
    let steps = page_steps();
    let dial = |lab: &AsteriskLab| Phone::new(lab, "1001", 0).dial("*13600");
    assert_eq!(dial(&lab), 404, "no step was done");
    copy_dialplan(&lab);
    follow(&lab, &steps[1]);
    assert_eq!(dial(&lab), 403);
    assert!(lab.log().contains("dialed *13600: refused: no accountcode"), "{}", lab.log());
    follow(&lab, &steps[2]);
    assert_eq!(dial(&lab), 500);
    assert!(lab.log().contains("NOSUCHQUEUE"), "{}", lab.log());
    name_queues_by_number(&lab);
    follow(&lab, &steps[3]);
    assert_eq!(dial(&lab), 200);
    // The table of names instead of the numbers is tried by `endpoints`. A sidecar that does not run:
    lab.sidecar = None;
    assert_eq!(dial(&lab), 503);
    assert!(lab.log().contains("no_verdict"), "{}", lab.log());
}

/// The modules that the page lists are loaded, and the lab loads no other for the shipped dialplan.
#[test]
fn the_page_lists_the_modules_that_the_lab_loads() {
    let page = fs::read_to_string(project().join("config/asterisk/README.md")).unwrap();
    let (_, list) = page.split_once("where `autoload = no`: `").unwrap();
    let listed: Vec<&str> = list.split('`').next().unwrap().split_whitespace().collect();
    let modules = fs::read_to_string(project().join("tests/pbx/asterisk/conf/modules.conf")).unwrap();
    let (_, shipped) = modules.split_once("; the shipped dialplan\n").unwrap();
    let (shipped, _) = shipped.split_once("; the lab's own calls").unwrap();
    let load = |module: &str| format!("load = {module}.so\n");
    assert!(listed.len() > 10 && listed.iter().all(|module| modules.contains(&load(module))), "{listed:?}");
    let is_listed = |line: &str| listed.iter().any(|module| load(module).trim() == line);
    let others: Vec<&str> = shipped.lines().filter(|line| !is_listed(line)).collect();
    assert_eq!(others, ["load = res_musiconhold.so"], "app_queue needs it");
}
