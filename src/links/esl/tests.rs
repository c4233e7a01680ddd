//! The exchange with a FreeSWITCH that answers by a table, over a stream that cuts its bytes anywhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use crate::config::link_names::NamePattern;
use crate::config::process::Secret;
use crate::links::esl::client::EslCredentials;
use crate::links::esl::connection::{EslConnection, FreeswitchNames};
use crate::links::members::{Member, MemberKey, Membership, PbxStart};
use crate::links::names::PbxNames;
use crate::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection};
use crate::links::supervisions::{HeardCall, Listener};
use crate::telephony::SupervisionMode;

const AGENT_HEADING: &str = "name|instance_id|uuid|type|contact|status|state|max_no_answer|wrap_up_time|\
    reject_delay_time|busy_delay_time|no_answer_delay_time|last_bridge_start|last_bridge_end|last_offered_call|\
    last_status_change|no_answer_count|calls_answered|talk_time|ready_time|external_calls_count\n";
const TIER_HEADING: &str = "queue|agent|state|level|position\n";
const JOB: &str = "fc75fc3b-1bbf-427a-9f50-29577701284b";

/// A FreeSWITCH that answers by a table.
#[derive(Clone, Debug)]
struct Script {
    /// The answers to API commands, by the command.
    answers: BTreeMap<String, String>,
    /// The events that are sent before the answer to an API command.
    events: BTreeMap<String, Vec<String>>,
    /// The first words of the commands that the account may not give.
    refused: BTreeSet<&'static str>,
    /// An API command whose answer changes, and its answers.
    later: Option<(String, VecDeque<&'static str>)>,
    /// Bytes that are sent at once.
    piece: usize,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new() -> Self {
        let agent = |name: &str, contact: &str, status: &str| {
            format!("{name}|single_box||callback|{contact}|{status}|Waiting|3|1|1|1|0|0|0|0|1795864220|0|0|0|0|0\n")
        };
        let mut script = Self {
            answers: BTreeMap::new(),
            events: BTreeMap::new(),
            refused: BTreeSet::new(),
            later: None,
            piece: usize::MAX,
            commands: Arc::default(),
        };
        script
            .answer("callcenter_config queue count", "2\n")
            .answer("callcenter_config queue list", "name|strategy\n600@pbx.test|ring-all\nsales|ring-all\n+OK\n")
            .answer(
                "callcenter_config tier list",
                &format!(
                    "{TIER_HEADING}600@pbx.test|1001@pbx.test|Active Inbound|3|1\n600@pbx.test|we|bar|Ready|1|1\n\
                     sales|agent two|Ready|1|1\nsales|agent two|Ready|1|1\n600@pbx.test|1003@pbx.test|Ready|1|1\n+OK\n"
                ),
            )
            .answer(
                "callcenter_config agent list",
                &[
                    AGENT_HEADING,
                    &agent("1001@pbx.test", "[a=b]user/1001|user/1002", "On Break"),
                    &agent("we|bar", "", "Available"),
                    &agent("agent two", "user/1002", "Available"),
                    &agent("1003@pbx.test", "user/1003", "Logged Out"),
                    "+OK\n",
                ]
                .concat(),
            );
        script
    }

    fn answer(&mut self, command: &str, answer: &str) -> &mut Self {
        self.answers.insert(command.to_owned(), answer.to_owned());
        self
    }

    fn variables(&mut self, channel: &str, variables: &[(&str, &str)]) -> &mut Self {
        for (variable, value) in variables {
            self.answer(&format!("uuid_getvar {channel} {variable}"), value);
        }
        self
    }

    /// The bytes of the answer to one command.
    fn reply(&mut self, command: &str) -> String {
        let text = |text: &str| format!("Content-Type: command/reply\nReply-Text: {text}\n\n");
        let words: Vec<&str> = command.split(' ').collect();
        if self.refused.iter().any(|refused| words.contains(refused)) {
            return text("-ERR permission denied");
        }
        let events: String = self.events.get(command).into_iter().flatten().map(|event| framed(event)).collect();
        match words.first().copied().unwrap_or_default() {
            "userauth" | "auth" => "Content-Type: command/reply\nReply-Text: +OK accepted\nAllowed-Events: all\n\
                 Allowed-API: callcenter_config,show,uuid_getvar,uuid_kill\nAllowed-LOG: true\n\n"
                .to_owned(),
            "bgapi" => {
                let event = format!(
                    "Event-Name: BACKGROUND_JOB\nCore-UUID: 3f309215\nJob-UUID: {JOB}\nJob-Command: callcenter_config\n\
                     Content-Length: 2\n\n2\n"
                );
                let forged =
                    format!("Event-Name: BACKGROUND_JOB\nCore-UUID: f0f0\nJob-UUID: {}\n\n", JOB.replace('a', "b"));
                text(&format!("+OK Job-UUID: {JOB}")) + &framed(&forged) + &framed(&event)
            }
            "api" => {
                let default = match words.get(1).copied() {
                    Some("uuid_getvar") => "-ERR No such channel!\n",
                    _ => "-ERR command not found!\n",
                };
                let answer = command.strip_prefix("api ").and_then(|command| self.answers.get(command));
                let answer = answer.map_or(default, String::as_str);
                let later = self.later.as_mut().filter(|(of, _)| command.strip_prefix("api ") == Some(of));
                let answer = later.and_then(|(_, answers)| answers.pop_front()).unwrap_or(answer);
                format!("{events}Content-Type: api/response\nContent-Length: {}\n\n{answer}", answer.len())
            }
            _ => text("+OK"),
        }
    }

    /// Serves one connection until the peer closes it.
    async fn serve(mut self, mut stream: DuplexStream) {
        let mut input = String::new();
        self.send(&mut stream, "Content-Type: auth/request\n\n").await;
        let mut buffer = [0; 512];
        while let Ok(length) = stream.read(&mut buffer).await {
            if length == 0 {
                return;
            }
            input.push_str(&String::from_utf8_lossy(&buffer[..length]));
            while let Some((command, rest)) = input.split_once("\n\n") {
                let (command, rest) = (command.to_owned(), rest.to_owned());
                self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command.clone());
                let reply = self.reply(&command);
                self.send(&mut stream, &reply).await;
                input = rest;
            }
        }
    }

    async fn send(&self, stream: &mut DuplexStream, text: &str) {
        for piece in text.as_bytes().chunks(self.piece.min(text.len()).max(1)) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn sent(&self) -> Vec<String> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An event as it is sent.
fn framed(event: &str) -> String {
    format!("Content-Length: {}\nContent-Type: text/event-plain\n\n{event}", event.len())
}

fn names() -> FreeswitchNames {
    let pattern = || NamePattern::parse("%@pbx.test").unwrap();
    FreeswitchNames {
        agents: PbxNames::new(pattern(), [("1002".into(), "agent two".into())]),
        queues: PbxNames::new(pattern(), [("601".into(), "sales".into())]),
    }
}

/// Runs `test` on a connection to the script.
async fn connected<F, T>(script: &Script, test: F) -> T
where
    F: AsyncFnOnce(&mut EslConnection<'_, DuplexStream>) -> T,
{
    let (ours, theirs) = duplex(64);
    let server = tokio::spawn(script.clone().serve(theirs));
    let (names, secret) = (names(), Secret::new("pw".to_owned()));
    let credentials = EslCredentials { username: Some("queuewarden@pbx.test"), secret: &secret };
    let mut connection = EslConnection::log_in(ours, &names, credentials).await.unwrap();
    let result = test(&mut connection).await;
    drop(connection);
    server.await.unwrap();
    result
}

/// The hints that are there.
async fn hints(connection: &mut EslConnection<'_, DuplexStream>) -> VecDeque<Hint> {
    let mut hints = VecDeque::new();
    // Long enough for what was sent, and too short for a second look.
    while let Ok(hint) = timeout(Duration::from_millis(60), connection.hint()).await {
        hints.push_back(hint.unwrap());
    }
    hints
}

fn member(paused: bool, penalty: u32) -> Member {
    Member { paused, paused_by_link: false, penalty, membership: Membership::Dynamic }
}

/// TRUTH 2: the tables as FreeSWITCH 1.11 sends them, cut at every place that a stream can cut them.
#[tokio::test]
async fn a_poll_reads_the_tables_however_they_are_cut() {
    for piece in [1, 2, 3, 7, 61, usize::MAX] {
        let mut script = Script::new();
        script.piece = piece;
        connected(&script, async |connection| {
            assert_eq!(connection.start().await.unwrap(), Some(PbxStart("3f309215".into())), "{piece}");
            connection.begin_poll().await.unwrap();
            let queue = connection.queue("600").await.unwrap().unwrap();
            let expected = [("1001".into(), member(true, 2))].into_iter().collect();
            assert_eq!((queue.members, queue.unparsed), (expected, ["we|bar".into()].into_iter().collect()), "{piece}");
            let sales = connection.queue("601").await.unwrap().unwrap();
            assert_eq!(sales.members, [("1002".into(), member(false, 0))].into_iter().collect());
            assert_eq!(connection.queue("602").await.unwrap(), None);
        })
        .await;
        let sent = script.sent();
        assert_eq!(sent[0], "userauth queuewarden@pbx.test:pw");
        assert!(sent.iter().all(|command| !command.contains("ALL") && !command.contains("CHANNEL_CREATE")), "{sent:?}");
    }
}

/// A refusal is no absence: it must not end a login session.
#[tokio::test]
async fn what_freeswitch_refuses_is_an_error_that_says_what() {
    let mut script = Script::new();
    let tiers = format!("{TIER_HEADING}sales|agent two|Ready|2|1\n+OK\n");
    let key = MemberKey::new("601", "1002");
    for (answer, expected) in [
        ("Available", Ok(Some(member(false, 1)))),
        ("-ERR Agent not found!\n", Ok(None)),
        ("-ERR permission denied", Err("`-ERR permission denied` to `callcenter_config agent get status 'agent two'`")),
        ("-ERR command not found!\n", Err("`-ERR command not found!`")),
        ("+OK\n", Err("cannot be read")),
    ] {
        script.answer("callcenter_config queue list tiers sales", &tiers);
        script.answer("callcenter_config agent get status 'agent two'", answer);
        let found = connected(&script, async |connection| connection.member(&key).await).await;
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.member().cloned(), expected, "{answer}"),
            (Err(LinkError::Protocol(said)), Err(expected)) => assert!(said.contains(expected), "{said}"),
            (found, expected) => panic!("{answer}: {found:?} instead of {expected:?}"),
        }
    }
}

/// The link removes a tier, and logs the agent out with the last one.
#[tokio::test]
async fn a_member_is_changed_by_name() {
    let mut script = Script::new();
    script
        .answer("callcenter_config tier del sales 'agent two'", "+OK\n")
        .answer("callcenter_config tier list", "+OK\n")
        .answer("callcenter_config agent set status 'agent two' 'Logged Out'", "+OK\n")
        .answer("callcenter_config tier add 600@pbx.test 1001@pbx.test 4 1", "-ERR Tier already exist!\n")
        .answer("callcenter_config agent set status 1001@pbx.test 'On Break'", "+OK\n")
        .answer("uuid_kill u-9 CALL_REJECTED", "-ERR No such channel!\n");
    let outcomes = connected(&script, async |connection| {
        let (two, one) = (MemberKey::new("601", "1002"), MemberKey::new("600", "1001"));
        let removed = connection.change(&two, MemberAction::Remove).await.unwrap();
        let added = connection.change(&one, MemberAction::Add { penalty: 3, paused: true }).await.unwrap();
        (removed, added, connection.hang_up("u-9").await.unwrap())
    })
    .await;
    assert_eq!(outcomes, (ActionOutcome::Done, ActionOutcome::Done, ActionOutcome::NotThere));
}

/// TRUTH 2: an event triggers a look and decides nothing; a forged or broken one does not end the connection.
#[tokio::test]
async fn events_become_hints_about_members_and_nothing_else() {
    let mut script = Script::new();
    let api = |argument: &str| {
        format!("Event-Name: API\nAPI-Command: callcenter_config\nAPI-Command-Argument: {argument}\n\n")
    };
    let events = vec![
        api("tier%20add%20600%40pbx.test%201001%40pbx.test%201%201"),
        api("tier%20del%20600%40elsewhere%201001%40pbx.test"),
        "Event-Subclass: callcenter%3A%3Ainfo\nEvent-Name: CUSTOM\nCC-Agent: agent%20two\n\
         CC-Action: agent-status-change\nCC-Agent-Status: On%20Break\n\n"
            .to_owned(),
        "Event-Name: API\nEvent-Name: API\nAPI-Command: callcenter_config\n\n".to_owned(),
        "Event-Name: CHANNEL_EXECUTE\nApplication: eavesdrop\nUnique-ID: a%20b\n\n".to_owned(),
        "Event: Hangup\n".to_owned(),
    ];
    script.events.insert("api callcenter_config queue count".to_owned(), events);
    for piece in [1, 5, usize::MAX] {
        script.piece = piece;
        let found = connected(&script, async |connection| {
            connection.begin_poll().await.unwrap();
            connection.ping().await.unwrap();
            hints(connection).await
        })
        .await;
        let expected =
            [("600", "1001"), ("601", "1002")].map(|(queue, user)| Hint::Member(MemberKey::new(queue, user)));
        assert_eq!(found, expected, "{piece}");
    }
}

/// TRUTH 2: calls are reported from what the channels say, whoever sent the event.
#[tokio::test]
async fn a_call_is_what_both_channels_say() {
    let mut script = Script::new();
    script
        .variables("leg-1", &[("bridge_uuid", "caller-1")])
        .variables(
            "caller-1",
            &[("cc_agent_uuid", "leg-1"), ("cc_queue", "600@pbx.test"), ("cc_agent", "1001@pbx.test")],
        )
        .variables("leg-2", &[("bridge_uuid", "caller-1")])
        .variables("leg-3", &[("bridge_uuid", "_undef_")])
        .answer(
            "callcenter_config queue list members 600@pbx.test",
            "queue|instance_id|uuid|session_uuid|cid_number|cid_name|system_epoch|joined_epoch|rejoined_epoch|\
             bridge_epoch|abandoned_epoch|base_score|skill_score|serving_agent|serving_system|state|score\n\
             600@pbx.test|single_box|3b|caller-1|3001|Eve|1|1|0|1|0|0|0|1001@pbx.test|single_box|Answered|2\n+OK\n",
        );
    connected(&script, async |connection| {
        connection.begin_poll().await.unwrap();
        assert_eq!(connection.calls().await.unwrap(), ["leg-1".into()]);
        assert_eq!(connection.call("leg-1").await.unwrap(), Some(MemberKey::new("600", "1001")));
        for other in ["leg-2", "leg-3", "caller-1", "gone", "a b", ""] {
            assert_eq!(connection.call(other).await.unwrap(), None, "{other}");
        }
    })
    .await;
}

fn listener(channel: &str, supervisor: &str, target: Option<&str>) -> Listener {
    let (supervisor, target) = (Some(supervisor.into()), target.map(Into::into));
    Listener { channel: channel.into(), supervisor, target }
}

/// TRUTH 2: who listens is what the channels say: the list is behind them, and events may be forged.
#[tokio::test]
async fn listeners_are_confirmed_by_their_channels_and_those_of_other_tenants_left_alone() {
    let user = |name, domain| [("user_name", name), ("domain_name", domain)];
    let mut script = Script::new();
    let row = |uuid: &str, application: &str| format!("{{\"uuid\":\"{uuid}\",\"application\":\"{application}\"}}");
    let rows =
        [row("spy-1", "eavesdrop"), row("over", "eavesdrop"), row("gone", "three_way"), row("theirs", "eavesdrop")];
    script
        .answer("show channels as json", &format!("{{\"row_count\":4,\"rows\":[{}]}}\n", rows.join(",")))
        .variables("leg-1", &[("user_name", "_undef_"), ("dialed_user", "1001"), ("dialed_domain", "PBX.test")])
        .variables("leg-9", &user("1001", "other.test"));
    for (channel, application, data) in [
        ("spy-1", "eavesdrop", "leg-1"),
        ("spy-2", "eavesdrop", "all"),
        ("spy-3", "userspy", "1001@pbx.test"),
        ("over", "park", ""),
        ("theirs", "eavesdrop", "leg-9"),
        ("spy-4", "native_eavesdrop", "leg-1"),
    ] {
        let variables = [("current_application", application), ("current_application_data", data)];
        script.variables(channel, &variables).variables(channel, &user("2001", "pbx.test"));
    }
    script.variables("theirs", &user("2001", "other.test")).variables("spy-4", &user("2001", "other.test"));
    let said = |channel: &str| format!("Event-Name: CHANNEL_EXECUTE\nApplication: eavesdrop\nUnique-ID: {channel}\n\n");
    let events = ["spy-2", "spy-3", "spy-4", "leg-1"].map(said).to_vec();
    script.events.insert("api callcenter_config queue count".to_owned(), events);
    connected(&script, async |connection| {
        connection.set_domains(vec!["pbx.test".into()]);
        connection.ping().await.unwrap();
        assert_eq!(hints(connection).await, [Hint::Listeners]);
        let expected = [
            listener("spy-1", "2001", Some("1001")),
            listener("spy-2", "2001", Some("all")),
            listener("spy-3", "2001", Some("1001")),
            listener("spy-4", "2001@other.test", Some("1001")),
        ];
        assert_eq!(connection.listeners().await.unwrap().as_deref(), Some(&expected[..]));
        assert_eq!(connection.listeners().await.unwrap().as_deref(), Some(&expected[..]), "without a new event");
        connection.set_domains(vec![]);
        assert_eq!(
            connection.listeners().await.unwrap().map_or(0, |found| found.len()),
            5,
            "a FreeSWITCH of one tenant"
        );
    })
    .await;
}

/// TRUTH 2: what a channel that listens already may do at most, and the queue of the call that it hears.
#[tokio::test]
async fn what_a_listener_hears_is_what_its_channel_lets_it_do() {
    let mut script = Script::new();
    let quiet = [("eavesdrop_enable_dtmf", "false"), ("eavesdrop_whisper_aleg", "false")];
    for (channel, application, target) in [
        ("keys", "eavesdrop", "leg-1"),
        ("listen", "eavesdrop", "leg-1"),
        ("whisper", "eavesdrop", "leg-2"),
        ("barge", "eavesdrop", "leg-1"),
        ("joined", "three_way", "leg-1"),
        ("waits", "userspy", "1001"),
        ("theirs", "eavesdrop", "leg-9"),
    ] {
        script.variables(channel, &[("current_application", application), ("current_application_data", target)]);
        if channel != "keys" {
            script.variables(channel, &quiet);
        }
    }
    script
        .variables("whisper", &[("eavesdrop_whisper_bleg", "true")])
        .variables("barge", &[("eavesdrop_whisper_aleg", "true"), ("eavesdrop_whisper_bleg", "true")])
        .variables("leg-1", &[("cc_queue", "600@pbx.test")])
        .variables("leg-9", &[("cc_queue", "600@elsewhere")]);
    let heard = |mode, queue: Option<&str>| Some(HeardCall { mode, queue: queue.map(Into::into) });
    connected(&script, async |connection| {
        for (channel, expected) in [
            ("keys", heard(SupervisionMode::Barge, Some("600"))),
            ("listen", heard(SupervisionMode::Listen, Some("600"))),
            ("whisper", heard(SupervisionMode::Whisper, None)),
            ("barge", heard(SupervisionMode::Barge, Some("600"))),
            ("joined", heard(SupervisionMode::Barge, Some("600"))),
            ("waits", None),
            ("theirs", None),
        ] {
            let found = connection.heard(&listener(channel, "2001", Some("1001"))).await.unwrap();
            assert_eq!(found, expected, "{channel}");
        }
    })
    .await;
}

/// A channel that is led to another target has left the first: the look in between does not have it.
#[tokio::test]
async fn a_channel_that_goes_on_to_another_target_is_found_anew() {
    let mut script = Script::new();
    let row = "{\"uuid\":\"spy-1\",\"application\":\"eavesdrop\"}";
    script
        .answer("show channels as json", &format!("{{\"row_count\":1,\"rows\":[{row}]}}\n"))
        .variables("spy-1", &[("current_application", "eavesdrop"), ("user_name", "2001")])
        .variables("leg-1", &[("user_name", "1001")])
        .variables("leg-2", &[("user_name", "1002")]);
    script.later = Some(("uuid_getvar spy-1 current_application_data".to_owned(), ["leg-1", "leg-2", "leg-2"].into()));
    connected(&script, async |connection| {
        let first = connection.listeners().await.unwrap();
        assert_eq!(first, Some(vec![listener("spy-1", "2001", Some("1001"))]));
        assert_eq!(connection.listeners().await.unwrap(), Some(vec![]));
        assert_eq!(hints(connection).await, [Hint::Listeners]);
        let second = connection.listeners().await.unwrap();
        assert_eq!(second, Some(vec![listener("spy-1", "2001", Some("1002"))]));
    })
    .await;
}

/// The link says at the login what its account lacks, and does not break.
#[tokio::test]
async fn an_account_without_rights_says_what_to_grant() {
    let mut script = Script::new();
    script.refused = ["CHANNEL_EXECUTE", "BACKGROUND_JOB"].into_iter().collect();
    connected(&script, async |connection| {
        assert_eq!(connection.start().await.unwrap(), None);
        connection.begin_poll().await.unwrap();
        assert!(!connection.queue("600").await.unwrap().unwrap().members.is_empty());
        assert!(connection.rights.may("uuid_kill") && !connection.rights.may("system"));
    })
    .await;
}
