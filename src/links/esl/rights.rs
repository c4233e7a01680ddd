//! The rights of an account of the event socket, and those that a link lacks.

use std::collections::BTreeSet;

use crate::config::links::{LinkTerms, MembersMode, SupervisionsMode};

/// The events that a link wants.
pub const EVENTS: [&str; 5] =
    ["API", "CHANNEL_EXECUTE", "MEDIA_BUG_START", "MEDIA_BUG_STOP", "CUSTOM callcenter::info"];

/// The event that tells the Core-UUID.
pub const JOB_EVENT: &str = "BACKGROUND_JOB";

/// Whether a link needs the event only to see who listens.
fn is_of_listeners(event: &str) -> bool {
    event == "CHANNEL_EXECUTE" || event.starts_with("MEDIA_BUG")
}

/// What the account of a link may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRights {
    /// The API commands that the account may give. `None`: all of them.
    api: Option<BTreeSet<Box<str>>>,
    /// The events that FreeSWITCH refused.
    refused_events: BTreeSet<&'static str>,
}

impl AccountRights {
    /// The rights that the answer to the login lists. `None`: the account may give every command.
    #[must_use]
    pub fn of_login(allowed_api: Option<&[u8]>) -> Self {
        let names = |list: &[u8]| {
            let list = String::from_utf8_lossy(list);
            list.split([',', ' ']).filter(|name| !name.is_empty()).map(Box::from).collect::<BTreeSet<Box<str>>>()
        };
        Self { api: allowed_api.map(names), refused_events: BTreeSet::new() }
    }

    /// FreeSWITCH refused this event.
    pub fn refuse_event(&mut self, event: &'static str) {
        self.refused_events.insert(event);
    }

    /// Whether the account may give this API command.
    #[must_use]
    pub fn may(&self, command: &str) -> bool {
        self.api.as_ref().is_none_or(|api| api.contains(command))
    }

    /// The rights that the account lacks for a link of these terms: each with what to grant and what does not work.
    #[must_use]
    pub fn missing(&self, terms: &LinkTerms) -> Vec<String> {
        let supervises = terms.supervisions != SupervisionsMode::Off;
        let commands = [
            ("callcenter_config", true, "members are neither seen nor changed"),
            ("uuid_getvar", true, "calls of agents and who listens are not seen"),
            ("show", supervises, "who listens is not seen"),
            ("uuid_kill", supervises, "channels whose supervision is over are not hung up"),
        ];
        let commands = commands.into_iter().filter(|(command, is_needed, _)| *is_needed && !self.may(command));
        let commands = commands.map(|(command, _, lost)| format!("`{command}` (`esl-allowed-api`): {lost}"));
        let is_needed =
            |event: &&&str| if is_of_listeners(event) { supervises } else { terms.members != MembersMode::Off };
        let events = self.refused_events.iter().filter(is_needed);
        let events = events
            .map(|event| format!("event `{event}` (`esl-allowed-events`): changes are seen by the next poll only"));
        commands.chain(events).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::links::UndoBounds;

    fn terms(members: MembersMode, supervisions: SupervisionsMode) -> LinkTerms {
        LinkTerms {
            name: "fs-1".into(),
            organization: "acme".into(),
            members,
            supervisions,
            adopts: false,
            poll_interval: Duration::from_secs(60),
            bounds: UndoBounds { per_minute_max: 30, percent_max: 20 },
        }
    }

    /// TRUTH 2: the link says at connect what was refused and what to grant, and nothing that it does not need.
    #[test]
    fn only_what_the_terms_need_is_missing() {
        let mut rights = AccountRights::of_login(Some(b"callcenter_config,uuid_getvar"));
        rights.refuse_event("MEDIA_BUG_START");
        let members_only = terms(MembersMode::Enforce, SupervisionsMode::Off);
        assert_eq!(rights.missing(&members_only), [""; 0]);
        let missing = rights.missing(&terms(MembersMode::Observe, SupervisionsMode::Observe));
        let named = |text: &str| missing.iter().any(|missing| missing.contains(text));
        assert!(
            missing.len() == 3 && named("`show`") && named("`uuid_kill`") && named("`MEDIA_BUG_START`"),
            "{missing:?}"
        );
        assert_eq!(AccountRights::of_login(None).missing(&members_only), [""; 0]);
        assert!(AccountRights::of_login(Some(b"status show")).may("show"), "a list with spaces");
        assert!(!AccountRights::of_login(Some(b"")).may("show"));
    }

    /// The account of config/freeswitch/README.md has what a link uses, and nothing else.
    #[test]
    fn the_account_of_the_page_is_the_smallest() {
        let page = include_str!("../../../config/freeswitch/README.md");
        let parameter = |name: &str| {
            let start = format!("<param name=\"{name}\" value=\"");
            page.split_once(&start).and_then(|(_, rest)| rest.split_once('"')).map(|(value, _)| value).unwrap()
        };
        let everything = terms(MembersMode::Enforce, SupervisionsMode::Enforce);
        let mut of_page: BTreeSet<&str> = parameter("esl-allowed-api").split(',').collect();
        assert_eq!(
            AccountRights::of_login(Some(parameter("esl-allowed-api").as_bytes())).missing(&everything),
            [""; 0]
        );
        for missing in AccountRights::of_login(Some(b"")).missing(&everything) {
            of_page.retain(|command| !missing.starts_with(&format!("`{command}`")));
        }
        assert_eq!(of_page, BTreeSet::new(), "what no link uses");
        let used: BTreeSet<&str> = EVENTS.iter().flat_map(|event| event.split(' ')).chain([JOB_EVENT]).collect();
        assert_eq!(parameter("esl-allowed-events").split(',').collect::<BTreeSet<_>>(), used);
    }
}
