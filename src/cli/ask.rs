//! `queuewarden ask`: one question to the running sidecar, as a PBX would put it.
//!
//! It only asks unless it is told to do. The line dialect has no word for asking about dialed digits, so the sidecar
//! first says what they mean ([`crate::gate::Explained`]), and then the action that they mean is asked about.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::line_client::{LineClient, LineClientError, LineReply};
use crate::cli::{EXIT_FAILED, explain, print_problems};
use crate::config;
use crate::config::process::ProcessSettings;
use crate::decision::{AllowReason, DenyReason, ErrorReason, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::event::{Key, KeySet};
use crate::gate::{Explained, Meaning};
use crate::policy::explain::Explanation;

/// Times that a question is put again because a reload or a change came between its answer and its explanation.
const ASK_AGAIN_MAX: usize = 4;

/// Options of `ask`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    org: String,
    /// Who asks: an extension or a user id.
    #[arg(long, value_name = "USER")]
    actor: String,
    /// Does it, if it is allowed. Without this nothing changes.
    #[arg(long = "do", global = true)]
    does: bool,
    /// Says why: the rule, what was looked at, and the smallest change that would turn a denial.
    #[arg(long, global = true)]
    explain: bool,
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Digits dialed on a phone: `dial '*13600'`.
    Dial {
        /// The digits.
        digits: String,
        #[command(flatten)]
        known: KnownOfCall,
        /// Further keys of the line dialect.
        #[arg(value_name = "KEY=VALUE")]
        more: Vec<String>,
    },
    /// A named action: `do call.whisper --target 1001 --queue 601`.
    #[command(alias = "may")]
    Do {
        /// The action.
        action: String,
        #[command(flatten)]
        known: KnownOfCall,
        /// Whom something is done to: an extension or a user id.
        #[arg(long, value_name = "USER")]
        target: Option<String>,
        /// How long a supervisor's login of somebody else lasts.
        #[arg(long = "for", value_name = "SECONDS")]
        lease: Option<String>,
        /// Further keys of the line dialect: from=…, group=…, conversation=….
        #[arg(value_name = "KEY=VALUE")]
        more: Vec<String>,
    },
}

/// What a PBX knows of a call.
#[derive(Debug, Args)]
struct KnownOfCall {
    /// The queue: a number or an id.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// The call.
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// By this channel: phone or dashboard.
    #[arg(long, value_name = "CHANNEL")]
    via: Option<String>,
}

/// Why there is no answer.
enum Failure {
    AdminClient(AdminClientError),
    LineClient(LineClientError),
    /// It is no question.
    NoQuestion(String),
    /// The sidecar answered with an error.
    Error(String),
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        Self::AdminClient(error)
    }
}

impl From<LineClientError> for Failure {
    fn from(error: LineClientError) -> Self {
        Self::LineClient(error)
    }
}

/// What is printed.
#[derive(Debug, Default, Serialize)]
struct Answer {
    verdict: String,
    reason: String,
    sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    queues: Vec<String>,
    policy: Option<u64>,
    /// What pins an allowed supervision down.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asterisk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freeswitch: Option<String>,
    /// Whether it was done, if it was allowed; otherwise it was only asked.
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

pub(super) fn run(folder: &Path, options: &Arguments, out: &mut impl Write) -> io::Result<u8> {
    let settings = match config::load_process_whole(folder) {
        Ok(settings) => settings,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let answer = match ask(folder, &settings, options) {
        Ok(answer) => answer,
        Err(Failure::AdminClient(AdminClientError::Configuration(problems))) => {
            return print_problems(&problems, options.json, out);
        }
        Err(failure) => {
            let message = match failure {
                Failure::AdminClient(error) => error.to_string(),
                Failure::LineClient(error) => error.to_string(),
                Failure::NoQuestion(why) => format!("this is no question: {why}"),
                Failure::Error(why) => why,
            };
            if options.json {
                writeln!(out, "{}", json!({ "error": message }))?;
            } else {
                writeln!(out, "{message}")?;
            }
            return Ok(EXIT_FAILED);
        }
    };
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&answer).map_err(io::Error::other)?)?;
    } else {
        print(&answer, out)?;
    }
    Ok(0)
}

fn ask(folder: &Path, settings: &ProcessSettings, options: &Arguments) -> Result<Answer, Failure> {
    let pairs = pairs_of(options);
    check(options, &pairs).map_err(|error| Failure::NoQuestion(error.to_string()))?;
    let is_dialed = matches!(options.question, Question::Dial { .. });
    let mut answer = Answer::default();
    for _ in 0..ASK_AGAIN_MAX {
        let explained: Option<Explained> = if options.explain || (is_dialed && !options.does) {
            Some(AdminClient::to_look(folder)?.get("explain", &pairs)?)
        } else {
            None
        };
        answer = match &explained {
            Some(Explained { policy, means: None, explanation }) if is_dialed && !options.does => {
                if explanation.verdict == "error" {
                    return Err(Failure::NoQuestion(format!("{}: {}", explanation.reason, explanation.sentence)));
                }
                // Digits that mean nothing cannot be asked about by their meaning.
                Answer::explained(*policy, explanation)
            }
            _ => {
                let mut peer = LineClient::dial(&settings.listen)?;
                present_token(&mut peer, settings)?;
                let means = explained.as_ref().and_then(|explained| explained.means.as_ref());
                Answer::replied(&peer.ask(&line_of(options, &pairs, means))?, options.does)?
            }
        };
        let Some(Explained { policy, explanation, .. }) = explained else { break };
        let fits = answer.policy == Some(policy) && answer.reason == explanation.reason;
        if options.explain {
            answer.explanation = Some(explanation);
        }
        // What was done is done: it is not done again for the sake of its explanation.
        if fits || options.does {
            break;
        }
    }
    Ok(answer)
}

/// The keys of the question, as the admin listener takes them.
fn pairs_of(options: &Arguments) -> Vec<(String, String)> {
    let given = |key: Key, value: &Option<String>| Some((key.name().to_owned(), value.clone()?));
    let (named, known, rest, more) = match &options.question {
        Question::Dial { digits, known, more } => ((Key::Digits, digits), known, vec![], more),
        Question::Do { action, known, target, lease, more } => {
            ((Key::Action, action), known, vec![given(Key::Target, target), given(Key::For, lease)], more)
        }
    };
    let first = [(Key::Organization, &options.org), (Key::Actor, &options.actor), named];
    let first = first.into_iter().map(|(key, value)| (key.name().to_owned(), value.clone()));
    let known = [given(Key::Queue, &known.queue), given(Key::Call, &known.call), given(Key::Via, &known.via)];
    let more = more.iter().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), value.to_owned())
    });
    first.chain(rest.into_iter().chain(known).flatten()).chain(more).collect()
}

/// Whether the line dialect has a question of these pairs: nothing else is sent to it.
fn check(options: &Arguments, pairs: &[(String, String)]) -> Result<(), WireError> {
    let verb = match options.question {
        Question::Dial { .. } => Verb::Dial,
        Question::Do { .. } => Verb::May,
    };
    let written: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut fields = Fields::new(verb);
    for pair in &written {
        fields.set_pair(pair.as_bytes(), KeySet::EMPTY)?;
    }
    fields.into_event().map(drop)
}

/// The question as a line of the dialect, without its id: digits by what they mean, unless they are to be done.
fn line_of(options: &Arguments, pairs: &[(String, String)], means: Option<&Meaning>) -> String {
    let verb = match (&options.question, options.does) {
        (Question::Dial { .. }, true) => "dial",
        (Question::Do { .. }, true) => "do",
        (_, false) => "may",
    };
    let mut words = vec![verb.to_owned()];
    for (key, value) in pairs {
        match means.filter(|_| !options.does && key == Key::Digits.name()) {
            None => words.push(format!("{key}={value}")),
            Some(Meaning { action, queue, target }) => {
                words.push(format!("action={action}"));
                words.extend(queue.iter().map(|queue| format!("queue={queue}")));
                words.extend(target.iter().map(|target| format!("target={target}")));
            }
        }
    }
    words.join(" ")
}

/// Presents the token, if the configuration has one.
fn present_token(peer: &mut LineClient, settings: &ProcessSettings) -> Result<(), Failure> {
    let Some(token) = &settings.listen.line_token else { return Ok(()) };
    let reply = peer.ask(&format!("auth token={}", String::from_utf8_lossy(token.reveal())))?;
    match reply.verdict.as_str() {
        "allow" => Ok(()),
        _ => Err(Failure::Error(
            "the sidecar does not take the token of `line_token_file`\n  help: was the file changed and not loaded? \
             Send SIGHUP"
                .to_owned(),
        )),
    }
}

impl Answer {
    fn replied(reply: &LineReply, does: bool) -> Result<Self, Failure> {
        let value = |key: &str| reply.value(key).map(str::to_owned);
        let reason = value("reason").unwrap_or_default();
        if reply.verdict == "error" {
            let sentence = ErrorReason::with_code(&reason).map_or("", ErrorReason::sentence);
            let key = value("key").map_or(String::new(), |key| format!(" (key `{key}`)"));
            let help = match ErrorReason::with_code(&reason) {
                Some(ErrorReason::Unauthenticated) => "\n  help: set `[listen] line_token_file` to the sidecar's token",
                Some(ErrorReason::Overload) => "\n  help: see `queuewarden top`",
                _ => "",
            };
            return Err(Failure::Error(format!("the sidecar made no decision: {reason}{key}: {sentence}{help}")));
        }
        let sentence = match reply.verdict.as_str() {
            "allow" => AllowReason::with_code(&reason).map(AllowReason::sentence),
            _ => DenyReason::with_code(&reason).map(DenyReason::sentence),
        };
        let queues = value("queues").or_else(|| value("queue"));
        Ok(Self {
            verdict: reply.verdict.clone(),
            sentence: sentence.unwrap_or_default().to_owned(),
            reason,
            action: value("action"),
            queues: queues.map(|queues| queues.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            policy: value("policy").and_then(|revision| revision.parse().ok()),
            mode: value("mode"),
            target: value("target"),
            asterisk: value("asterisk"),
            freeswitch: value("freeswitch"),
            done: does && reply.verdict == "allow",
            explanation: None,
        })
    }

    fn explained(policy: u64, explanation: &Explanation) -> Self {
        Self {
            verdict: explanation.verdict.clone().into_owned(),
            reason: explanation.reason.clone().into_owned(),
            sentence: explanation.sentence.clone().into_owned(),
            action: explanation.action.clone(),
            queues: explanation.queues.clone(),
            policy: Some(policy),
            ..Self::default()
        }
    }
}

fn print(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let told = answer.explanation.as_ref().filter(|explanation| explanation.reason == answer.reason);
    if let Some(explanation) = told {
        explain::print(explanation, out)?;
    } else {
        writeln!(out, "{} {}: {}", answer.verdict, answer.reason, answer.sentence)?;
        if let Some(action) = &answer.action {
            let queues = answer.queues.join(", ");
            let queues = if queues.is_empty() { String::new() } else { format!(" (queue {queues})") };
            writeln!(out, "  action  {action}{queues}")?;
        }
    }
    let pins = [
        ("mode", &answer.mode),
        ("target", &answer.target),
        ("asterisk", &answer.asterisk),
        ("freeswitch", &answer.freeswitch),
    ];
    for (name, value) in pins.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        writeln!(out, "  {name:<7} {value}")?;
    }
    if let Some(policy) = answer.policy {
        writeln!(out, "  policy  {policy}")?;
    }
    if answer.done {
        writeln!(out, "  done")?;
    }
    if let (Some(explanation), None) = (&answer.explanation, told) {
        writeln!(out, "something changed while it was asked; a moment before or after, it was:")?;
        explain::print(explanation, out)?;
    }
    Ok(())
}
