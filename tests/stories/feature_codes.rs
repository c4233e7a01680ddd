//! Given the preset of a PBX, when a feature code is dialed, then it has the meaning of that PBX. Of two codes that
//! match, the one with more literal digits counts.

use crate::stories::fixtures::{ORGANIZATION, play};

/// [`ORGANIZATION`] with this preset and these own feature codes.
fn dialing(preset: Option<&str>, own: &str) -> String {
    let organization = ORGANIZATION.replace("\"*45\" = \"queue.toggle\"", own);
    let line = "feature_code_preset = \"asterisk\"\n";
    organization.replace(line, &preset.map_or(String::new(), |preset| line.replace("asterisk", preset)))
}

/// Given a preset, when its codes are dialed, then they have the actions of that system in `FEATURE_CODES.md`. Codes of
/// other functions, and undocumented codes, are unknown.
#[test]
fn each_preset_has_the_codes_of_its_system() {
    let login = "allow assigned queue.login 600";
    let logout = "allow logged_out queue.logout 600";
    let listen = "allow role_permits call.listen 600";
    let whisper = "allow role_permits call.whisper 600";
    let barge = "allow role_permits call.barge 600";
    let nothing = "deny unknown_feature_code";
    let presets: &[(&str, &[(&str, &str)])] = &[
        (
            "goto",
            &[
                ("1001 *13600", login),
                ("1001 *13", "allow already_logged_in queue.login 600"),
                ("2001 *171001 queue=600", listen),
                ("1001 *14600", nothing),
                ("1001 *19", nothing),
            ],
        ),
        (
            "freepbx",
            &[
                ("1001 *45600", login),
                ("1001 *45600", logout),
                ("1001 *45", login),
                ("1001 600**", logout),
                ("1001 600*", login),
                ("1001 *46600", "allow paused queue.pause 600"),
                ("1001 *46600", "allow resumed queue.resume 600"),
                ("1001 *46", "allow paused queue.pause 600"),
                ("1001 *46*1001*600", "allow resumed queue.resume 600"),
                ("1001 *46*1001", "allow paused queue.pause 600"),
                ("1001 *46", "allow resumed queue.resume 600"),
                ("1001 *451001*600", logout),
                ("1001 *46600", "deny not_logged_in queue.pause 600"),
                ("1001 *46", "deny not_logged_in queue.pause"),
                ("1001 *45*1001", login),
                ("1001 *451002*600", "deny target_out_of_scope queue.toggle 600"),
                ("1001 *45*1002", "deny target_out_of_scope queue.toggle"),
                ("2001 *46*1001*600", "deny target_out_of_scope queue.toggle_pause 600"),
                // No answer tells whether anybody has the extension.
                ("1001 *459999*600", "deny target_out_of_scope queue.toggle 600"),
                ("1001 *45*9999", "deny target_out_of_scope queue.toggle"),
                ("1001 *46*9999*600", "deny target_out_of_scope queue.toggle_pause 600"),
                ("1001 *459999*999", "deny unknown_queue queue.toggle"),
                ("1001 *451002*999", "deny unknown_queue queue.toggle"),
                ("1001 *451001*999", "deny unknown_queue queue.toggle"),
                ("1001 *45**600", nothing),
                ("1001 *451001*", nothing),
                ("1001 *47", nothing),
                ("1001 *11", nothing),
                ("2001 5551001 queue=600", nothing),
            ],
        ),
        (
            "fusionpbx",
            &[
                ("1001 *22", login),
                ("1001 *22", logout),
                ("1001 *22600", nothing),
                ("2001 *331001 queue=600", listen),
                ("1001 *23", nothing),
            ],
        ),
        (
            "yeastar_s",
            &[
                ("1001 600*", login),
                ("1001 600**", logout),
                ("1001 *75600", login),
                ("1001 *75600", logout),
                ("2001 *901001 queue=600", listen),
                ("2001 *911001 queue=600", whisper),
                ("2001 *921001 queue=600", barge),
                ("1001 *75", nothing),
            ],
        ),
        (
            "yeastar_p",
            &[
                ("2001 *511001 queue=600", listen),
                ("2001 *521001 queue=600", whisper),
                ("2001 *531001 queue=600", barge),
                ("1001 600*", nothing),
            ],
        ),
        (
            "grandstream",
            &[
                ("1001 600*", login),
                ("1001 *83", "allow paused queue.pause 600"),
                ("1001 600**", logout),
                ("2001 *541001 queue=600", listen),
                ("2001 *551001 queue=600", whisper),
                ("2001 *561001 queue=600", barge),
            ],
        ),
        (
            "asterisk",
            &[
                ("1001 *13600", login),
                ("1001 *15600", "allow paused queue.pause 600"),
                ("1001 *16", "allow resumed queue.resume 600"),
                ("1001 *14600", logout),
                ("1001 *13", login),
                ("1001 *14", logout),
                ("2001 *2211001 queue=600", listen),
                ("2001 *2221001 queue=600", whisper),
                ("2001 *2231001 queue=600", barge),
                ("2001 *2241001 queue=600", nothing),
                ("2001 *171001*600", "allow supervisor_login agent.login 600"),
                ("2001 *181001*600", "allow supervisor_logout agent.logout 600"),
                ("2001 *171001*601", "deny queue_out_of_scope agent.login 601"),
                ("1001 *171002*600", "deny supervisor_role_required agent.login 600"),
                ("2001 *17600*1001", "deny unknown_queue agent.login"),
                ("2001 *17*600", nothing),
                ("2001 *171001*", nothing),
                ("2001 *171001", nothing),
            ],
        ),
    ];
    for (preset, steps) in presets {
        play(&dialing(Some(preset), ""), steps);
    }
    play(&dialing(None, ""), &[("1001 *13600", nothing), ("1001 *13", nothing), ("2001 *2211001 queue=600", nothing)]);
}

/// Given codes with and without placeholders, when several match the dialed digits, then the code with the most literal
/// digits counts.
#[test]
fn the_longest_match_wins_whatever_its_shape() {
    let own = r#"
"*5{queue}" = "queue.login"
"*51{target}" = "call.listen"
"*51" = "call.direct_in"
"{queue}*" = "queue.logout"
"{queue}**" = "queue.pause"
"*6{queue}*" = "queue.toggle"
"*6600*" = "queue.login"
"7#{queue}" = "queue.login"
"*77" = "agent.end_wrapup"
"#
    .trim();
    play(
        &dialing(None, own),
        &[
            ("1001 *5600", "allow assigned queue.login 600"),
            ("1001 *51600", "deny unknown_target call.listen"),
            ("2001 *511001 queue=600", "allow role_permits call.listen 600"),
            ("1001 *51", "allow role_permits call.direct_in"),
            ("1001 600**", "allow paused queue.pause 600"),
            ("1001 600*", "allow logged_out queue.logout 600"),
            ("1001 *6600*", "allow assigned queue.login 600"),
            ("1001 *6601*", "deny unassigned_barred queue.login 601"),
            ("1001 7#600", "allow already_logged_in queue.login 600"),
            ("2001 *771001 queue=600", "allow role_permits agent.end_wrapup 600"),
            ("1001 600***", "deny unknown_feature_code"),
            ("1001 *5", "deny unknown_feature_code"),
            ("1001 *5600#", "deny unknown_feature_code"),
            ("1001 *50000000000000600", "deny unknown_queue queue.login"),
            ("1001 *500000000000000600", "deny unknown_feature_code"),
        ],
    );
}

/// Given a preset and own codes of the organization, when a code is in both, then the own code counts, and the other
/// codes of the preset stay.
#[test]
fn an_organization_adds_to_its_preset_and_overrides_it() {
    play(
        &dialing(Some("goto"), "\"*13\" = \"queue.toggle\"\n\"*221\" = \"call.listen\""),
        &[
            ("1001 *13600", "allow assigned queue.login 600"),
            ("1001 *13600", "allow logged_out queue.logout 600"),
            ("1001 *13", "allow assigned queue.login 600"),
            ("1001 *13", "allow logged_out queue.logout 600"),
            ("2001 *2211001 queue=600", "allow role_permits call.listen 600"),
            ("2001 *171001 queue=600", "allow role_permits call.listen 600"),
        ],
    );
    // Only the code with a queue is overridden.
    play(
        &dialing(Some("goto"), "\"*13{queue}\" = \"queue.logout\""),
        &[("1001 *13", "allow assigned queue.login 600"), ("1001 *13600", "allow logged_out queue.logout 600")],
    );
}

/// FIELD C10: a code has a queue and a target, in either order, and each is cut as it was dialed.
#[test]
fn a_code_names_a_queue_and_a_target() {
    let own = "\"*17{target}*{queue}\" = \"agent.login\"\n\"*18{queue}#{target}\" = \"agent.logout\"\n\
               \"*9{target}*{queue}\" = \"call.listen\"\n\"*451{queue}*{target}\" = \"queue.login\"";
    let long = "6".repeat(108);
    play(
        &dialing(None, own),
        &[
            ("2001 *171001*600", "allow supervisor_login agent.login 600"),
            ("2001 *18600#1001", "allow supervisor_logout agent.logout 600"),
            ("2001 *181001#600", "deny unknown_queue agent.logout"),
            ("2001 *91001*600", "allow role_permits call.listen 600"),
            ("1001 *451600*1001", "allow assigned queue.login 600"),
            ("1001 *451600*1002", "deny target_out_of_scope queue.login 600"),
            ("2001 *18#1001", "deny unknown_feature_code"),
            ("2001 *18600#", "deny unknown_feature_code"),
            ("2001 *171001*600 queue=600", "error duplicate_key queue"),
            ("2001 *171001*600 target=1001", "error unknown_key target"),
            (&format!("2001 *17{long}*600"), "deny unknown_feature_code"),
            (&format!("2001 *171001*{long}"), "deny unknown_feature_code"),
        ],
    );
}
