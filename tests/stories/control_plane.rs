//! Given the permissions page and the dispositions of calls, when a supervisor or an agent asks for them, then hidden
//! settings stay hidden and the settings decide (V21 to V24).

use crate::stories::fixtures::{ORGANIZATION, play};

/// [`ORGANIZATION`] with the setting `enable_dispositions` of agents, and with a queue that has wrap-up time.
fn with_dispositions(on: bool) -> String {
    let organization = ORGANIZATION.replace("number = \"602\"\n", "number = \"602\"\nwrap_up_seconds = 30\n");
    let organization = organization.replacen("queues = [\"q0\"]", "queues = [\"q0\", \"q2\"]", 1);
    organization.replace(
        "[settings.contact_admin]\n",
        &format!("[settings.agent]\nenable_dispositions = {on}\n\n[settings.contact_admin]\n"),
    )
}

/// Given supervisors may open the portal, when a supervisor views the permissions, then the answer is deny: R40, V21.
#[test]
fn a_supervisor_never_sees_the_permissions() {
    let portal = ORGANIZATION.replace("supervise_peers = false", "access_configuration_portal = true");
    for organization in [ORGANIZATION, &portal] {
        play(
            organization,
            &[
                ("2001 permissions.view", "deny role_forbids permissions.view"),
                ("2001 permissions.edit", "deny role_forbids permissions.edit"),
                ("2005 permissions.edit", "allow role_permits permissions.edit"),
            ],
        );
    }
    play(ORGANIZATION, &[("2001 portal.open", "deny permission_off portal.open")]);
    play(
        &portal,
        &[
            ("2001 portal.open", "allow role_permits portal.open"),
            ("1001 portal.open", "deny role_forbids portal.open"),
        ],
    );
}

/// Given an ended call, when its agent sets a disposition, then the answer is allow only with the setting on, and in a
/// call queue that has wrap-up time: R54 to R56, V22, V23, V24.
#[test]
fn a_disposition_needs_the_switch_and_a_queue_with_wrap_up() {
    play(
        &with_dispositions(true),
        &[
            ("1001 disposition.set queue=600", "deny wrapup_not_configured disposition.set 600"),
            ("1001 disposition.set queue=602", "allow role_permits disposition.set 602"),
            ("1001 disposition.set queue=601", "deny wrong_kind disposition.set 601"),
            ("1002 disposition.set queue=602", "deny queue_out_of_scope disposition.set 602"),
            ("1001 disposition.set", "deny wrapup_not_configured disposition.set"),
            ("3002 disposition.set queue=602", "deny agent_role_required disposition.set 602"),
            ("2001 disposition.set queue=602", "deny agent_role_required disposition.set 602"),
        ],
    );
    play(
        &with_dispositions(false),
        &[
            ("1001 disposition.set queue=602", "deny permission_off disposition.set 602"),
            ("1001 disposition.set queue=600", "deny permission_off disposition.set 600"),
        ],
    );
}
