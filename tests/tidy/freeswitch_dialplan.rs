//! The dialplan for FreeSWITCH: it is XML, FreeSWITCH's preprocessor reads it as it is meant, its expressions match
//! every code, and what fails allows nothing (FIELD A6, C3).

use std::fs;

use regex::Regex;

use super::markdown::pages;
use crate::support::project;

/// The files that an operator copies, and the XML of the pages.
fn documents() -> Vec<(String, String)> {
    let folder = project().join("config/freeswitch");
    let mut documents: Vec<(String, String)> = ["queuewarden.xml", "00_queuewarden.xml"]
        .map(|name| (name.to_owned(), fs::read_to_string(folder.join(name)).unwrap()))
        .into();
    for page in pages() {
        let blocks = page.blocks().into_iter().filter(|block| block.language == "xml");
        documents.extend(blocks.map(|block| (format!("{}, {}", block.page, block.heading), block.text)));
    }
    assert!(documents.len() >= 5, "the pages show XML");
    documents
}

/// Panics unless the text is a sequence of whole XML elements, comments and words.
fn assert_well_formed(name: &str, text: &str) {
    let attributes = Regex::new(r#"^[A-Za-z-]+(\s+[a-z-]+="[^"<&]*")*\s*/?$"#).unwrap();
    let mut open: Vec<&str> = vec![];
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            let end = comment.find("-->").unwrap_or_else(|| panic!("{name}: a comment does not end"));
            assert!(!comment[..end].contains("--"), "{name}: `--` in a comment: {}", &comment[..end]);
            rest = &comment[end + 3..];
            continue;
        }
        let end = rest.find('>').unwrap_or_else(|| panic!("{name}: a tag does not end: {rest}"));
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{name}: </{closed}>");
            continue;
        }
        assert!(attributes.is_match(tag), "{name}: <{tag}>");
        if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "{name}: not closed");
}

/// FIELD C3: FreeSWITCH carries out `X-PRE-PROCESS` inside a comment, and reads `<include>` only on a line of its own.
#[test]
fn the_xml_is_well_formed_and_survives_the_preprocessor() {
    let comment = Regex::new(r"(?s)<!--.*?-->").unwrap();
    for (name, text) in documents() {
        assert_well_formed(&name, &text);
        for found in comment.find_iter(&text) {
            assert!(!found.as_str().contains("PRE-PROCESS"), "{name}: {}", found.as_str());
        }
        for line in text.lines().filter(|line| line.contains("include>")) {
            assert!(["<include>", "</include>"].contains(&line.trim()), "{name}: {line}");
        }
        let body = comment.replace_all(&text, "");
        assert!(!body.contains("context name=\"default\""), "{name}: it would replace the PBX's own context");
    }
}

/// The three expressions of `00_queuewarden.xml`.
fn shipped() -> Vec<String> {
    let text = fs::read_to_string(project().join("config/freeswitch/00_queuewarden.xml")).unwrap();
    expressions(&text)
}

fn expressions(text: &str) -> Vec<String> {
    let expression = Regex::new(r#"field="destination_number" expression="([^"]+)""#).unwrap();
    let found: Vec<String> = expression.captures_iter(text).map(|found| found[1].to_owned()).collect();
    assert_eq!(found.len(), 3, "leave, member, supervise");
    found
}

/// The rows of a Markdown table whose first cell is a preset or a header, split into cells.
fn rows<'t>(text: &'t str, header: &str) -> Vec<Vec<&'t str>> {
    let start = text.find(header).unwrap_or_else(|| panic!("no table {header}"));
    let lines = text[start..].lines().take_while(|line| line.starts_with('|'));
    let cells = |line: &'t str| -> Vec<&'t str> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split(" |").map(|cell| cell.trim().trim_start_matches('|').trim()).collect()
    };
    lines.map(cells).collect()
}

/// The codes of every preset, with the action of each, from the generated table: `(preset, action, code)`.
fn preset_codes() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(project().join("config/organizations/README.md")).unwrap();
    let (_, text) = text.split_once("<!-- generated: presets -->").unwrap();
    let table = rows(text, "| Action ");
    let mut codes = vec![];
    for row in &table[2..] {
        for (column, cell) in row.iter().enumerate().skip(1) {
            let name = |cell: &str| cell.trim_matches('`').to_owned();
            let of_cell = cell.split('`').skip(1).step_by(2);
            codes.extend(of_cell.map(|code| (name(table[0][column]), name(row[0]), code.to_owned())));
        }
    }
    assert!(codes.len() > 30, "{codes:?}");
    codes
}

/// FIELD C3: every code reaches the sidecar, by the extension that knows what its digits are.
#[test]
fn the_expressions_match_every_code_of_their_preset() {
    let page = fs::read_to_string(project().join("config/freeswitch/README.md")).unwrap();
    let table = rows(&page, "| Preset | `queuewarden-leave`");
    let of_preset = |preset: &str| -> Vec<Option<Regex>> {
        let row = table.iter().find(|row| row[0] == format!("`{preset}`")).unwrap_or_else(|| panic!("{preset}"));
        let expression = |cell: &&str| Regex::new(&cell.trim_matches('`').replace("\\|", "|")).unwrap();
        row[1..].iter().map(|cell| (*cell != "–").then(|| expression(cell))).collect()
    };
    let written = |found: &[Option<Regex>]| -> Vec<String> {
        found.iter().map(|found| found.as_ref().unwrap().as_str().to_owned()).collect()
    };
    assert_eq!(written(&of_preset("asterisk")), shipped(), "the page shows the expressions of the file");
    let fusionpbx = fs::read_to_string(project().join("config/fusionpbx/README.md")).unwrap();
    assert_eq!(expressions(&fusionpbx), shipped(), "the page of FusionPBX has the same");

    let more = [
        "*45",
        "*45{queue}",
        "*45{target}*{queue}",
        "*46",
        "*46*{target}*{queue}",
        "*17{target}",
        "*18{target}*{queue}",
    ];
    let more = more.map(|code| ("asterisk".to_owned(), "queue.toggle".to_owned(), code.to_owned()));
    for (preset, action, code) in preset_codes().into_iter().chain(more) {
        let digits = code.replace("{queue}", "600").replace("{target}", "1001");
        let expressions = of_preset(&preset);
        let matching: Vec<usize> = (0..3)
            .filter(|&at| expressions[at].as_ref().is_some_and(|expression| expression.is_match(&digits)))
            .collect();
        let extension = match (&*action, code.contains("{queue}")) {
            ("queue.logout", true) => 0,
            (action, _) if action.starts_with("call.") => 2,
            _ => 1,
        };
        assert_eq!(matching, [extension], "{preset}: {code} is {action}");
        if extension != 1 {
            let argument = expressions[extension].as_ref().unwrap().captures(&digits).unwrap()[2].to_owned();
            assert_eq!(argument, if extension == 0 { "600" } else { "1001" }, "{preset}: {code}");
        }
    }
    for digits in ["*13a", "13600", "*2211001x", "*22", "*0600", "*8", "**1001", "779", "*98", "", "*14600\n", "dialed"]
    {
        let is_ours = shipped().iter().any(|expression| Regex::new(expression).unwrap().is_match(digits));
        assert!(!is_ours, "{digits:?} is no code of ours");
    }
}

/// Every extension that is run by a fixed name exists, and none can be dialed into: a phone's context has one door.
#[test]
fn every_extension_that_is_run_exists() {
    let text = fs::read_to_string(project().join("config/freeswitch/queuewarden.xml")).unwrap();
    let name = Regex::new(r#"field="destination_number" expression="(\^[^"]+)""#).unwrap();
    let names: Vec<String> = name.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    let run =
        Regex::new(r#"(?:execute_extension|report)" data="([^" $]+)(\$\{[a-z_]+\})?[^" ]* XML (queuewarden[a-z-]*)""#)
            .unwrap();
    let plain: Vec<_> = run.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    assert!(plain.len() > 30, "{plain:?}");
    for started in plain {
        let known = names.iter().any(|expression| {
            let expression = expression.replace("(?=@)", "").replace("-\\1-", "-[0-9]+-");
            let samples = ["", "600", "600,601", "logout", "1001@a", "pause", "1001-1001-true-"];
            samples.iter().any(|sample| Regex::new(&expression).unwrap().is_match(&format!("{started}{sample}")))
                || expression.starts_with(&format!("^{}", started.trim_end_matches('-')))
        });
        assert!(known, "no extension matches {started}");
    }
}

/// FIELD B7: three unanswered calls pause an agent in FreeSWITCH and not at the sidecar. The toggle of the pause turns
/// round what FreeSWITCH says; no other code does.
#[test]
fn a_toggle_of_the_pause_turns_round_what_freeswitch_says() {
    let text = fs::read_to_string(project().join("config/freeswitch/queuewarden.xml")).unwrap();
    let toggle = text.split("<extension name=\"toggle\">").nth(1).unwrap().split("</extension>").next().unwrap();
    let compared = "field=\"${queuewarden_digits}:${queuewarden_wish}:${queuewarden_before}\" expression=\"";
    let expression = Regex::new(toggle.split(compared).nth(1).unwrap().split('"').next().unwrap()).unwrap();
    for (digits, wish, status, is_turned) in [
        ("*46", "pause", "On Break", true),
        ("*46600", "pause", "On Break", true),
        ("*46*1001*600", "pause", "On Break", true),
        ("*46", "resume", "Available", true),
        ("*46", "pause", "Available", false),
        ("*46", "resume", "On Break", false),
        ("*46", "pause", "Logged Out", false),
        ("*15", "pause", "On Break", false),
        ("*16600", "resume", "Available", false),
        ("*45600", "pause", "On Break", false),
    ] {
        let is_match = expression.is_match(&format!("{digits}:{wish}:{status}"));
        assert_eq!(is_match, is_turned, "{digits}, {wish}, {status}");
    }
    // The other half of the toggle is done only if the sidecar allows it.
    for (half, other) in [("pause", "resume"), ("resume", "pause")] {
        let turn = text.split(&format!("<extension name=\"turn-{half}\">")).nth(1).unwrap();
        let asked = turn.find(&format!("follow-{other} XML")).unwrap();
        assert!(asked < turn.find(&format!("queuewarden_wish={other}-${{qw_verdict}}\"")).unwrap());
    }
    assert!(text.contains("expression=\"^status-(pause|resume)(?:-allow)?$\""));
}

/// THREATS: nothing is allowed unless the sidecar said so, in time, and once.
#[test]
fn what_is_not_answered_allows_nothing() {
    let text = fs::read_to_string(project().join("config/freeswitch/queuewarden.xml")).unwrap();
    assert_eq!(text.matches("application=\"socket\"").count(), 1, "one extension asks");
    let ask = text.split("<extension name=\"ask\">").nth(1).unwrap().split("</extension>").next().unwrap();
    let steps = [
        "qw_verdict=none",
        "qw_domain=${queuewarden_domain}",
        "qw_once=${uuid}-",
        "qw_until=",
        "sched_hangup\" data=\"+2 NORMAL_TEMPORARY_FAILURE",
        "socket\" data=\"$${queuewarden_address}\"",
        "sched_cancel",
    ];
    let places: Vec<usize> = steps.iter().map(|step| ask.find(step).unwrap_or_else(|| panic!("{step}"))).collect();
    assert!(places.is_sorted(), "{places:?}");
    let eavesdrop = text.find("application=\"eavesdrop\"").unwrap();
    assert_eq!(text.matches("application=\"eavesdrop\"").count(), 1);
    assert!(text.find("eavesdrop_enable_dtmf=false").unwrap() < eavesdrop);
    for guard in ["transfer_source", "sip_h_Referred-By", "mod_loopback"] {
        assert!(text.find(guard).unwrap() < text.find("<extension name=\"own\">").unwrap(), "FIELD A6: {guard}");
    }
    assert!(!text.contains("qw_org="), "FIELD A4: the organization is that of the authenticated domain");
}

/// FIELD B9: leaving and pausing give nobody a right, so they are done without a verdict too. A denial for a reason is
/// no missing verdict.
#[test]
fn leaving_and_pausing_need_no_verdict() {
    let text = fs::read_to_string(project().join("config/freeswitch/queuewarden.xml")).unwrap();
    let expression = |variable: &str| {
        let compared =
            format!("field=\"${{queuewarden_verdict}} ${{queuewarden_reason}} ${{{variable}}}\" expression=\"");
        Regex::new(text.split(&compared).nth(1).unwrap().split('"').next().unwrap()).unwrap()
    };
    let (leaves, pauses) = (expression("queuewarden_leaves"), expression("queuewarden_digits"));
    for (answer, is_done) in [
        ("none no_verdict", true),
        ("deny not_logged_in", true),
        ("deny state_unavailable", true),
        ("deny too_late", true),
        ("deny unassigned_barred", false),
        ("deny transferred", false),
        ("allow assigned", false),
        ("none not_logged_in", false),
    ] {
        assert_eq!(leaves.is_match(&format!("{answer} 600")), is_done, "{answer}");
        assert_eq!(pauses.is_match(&format!("{answer} *15600")), is_done, "{answer}");
    }
    for (digits, is_pause) in
        [("*15", true), ("*83", true), ("*16", false), ("*13600", false), ("*46", false), ("*151001*600", false)]
    {
        assert_eq!(pauses.is_match(&format!("none no_verdict {digits}")), is_pause, "{digits}");
    }
}
