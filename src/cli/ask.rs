//! `queuewarden ask`: puts one question to the running sidecar, as a PBX would.
//!
//! Without `--do` the command changes nothing: it asks with the verb `may` of the line dialect. `may` takes an action
//! and no digits, so for dialed digits the command first asks the admin listener which action they mean
//! ([`crate::gate::Explained`]).

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;
use thiserror::Error;

use crate::cli::admin_client::{AdminClient, AdminClientError};
use crate::cli::line_client::{LineClient, LineClientError, LineReply};
use crate::cli::question::{QuestionArguments, QuestionPairs};
use crate::cli::sidecar_address::AddressError;
use crate::cli::{explain, print_error, print_problems};
use crate::config;
use crate::config::process::ProcessSettings;
use crate::decision::{AllowReason, DenyReason, ErrorReason, Reason, WireError};
use crate::event::Key;
use crate::gate::{DialedMeaning, Explained};
use crate::policy::explain::Explanation;

/// Attempts to get an answer and an explanation of the same policy and the same state.
const ASK_AGAIN_MAX: usize = 4;

/// Options of `ask`.
#[derive(Debug, Args)]
pub(super) struct AskArguments {
    #[command(flatten)]
    question: QuestionArguments,
    /// Does it, if it is allowed. Without this nothing changes.
    #[arg(long = "do", global = true)]
    does: bool,
    /// Says why: the rule, the facts, and the smallest change that would turn a denial into an allow.
    #[arg(long, global = true)]
    explain: bool,
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
}

/// The command has no answer to print.
#[derive(Debug, Error)]
enum AskError {
    #[error(transparent)]
    AdminClient(#[from] AdminClientError),
    #[error(transparent)]
    LineClient(#[from] LineClientError),
    /// The line dialect has no such question.
    #[error("this is no question: {0}")]
    NoQuestion(#[source] WireError),
    /// The sidecar cannot read the question that it is asked to explain.
    #[error("this is no question: {reason}: {sentence}")]
    NotExplained { reason: String, sentence: String },
    /// The sidecar refused the token of `line_token_file`.
    #[error(
        "the sidecar does not take the token of `line_token_file`\n  help: was the file changed and not loaded? Send \
         SIGHUP"
    )]
    TokenRefused,
    /// The answer of the sidecar lacks this key.
    #[error("the answer of the sidecar has no `{0}`")]
    MissingReplyKey(&'static str),
    /// The sidecar answered with an error. `key` names the wrong key, or is empty.
    #[error("the sidecar made no decision: {reason}{key}: {sentence}{help}")]
    NoDecision { reason: String, key: String, sentence: &'static str, help: &'static str },
}

/// The answer, as it is printed.
#[derive(Debug, Default, Serialize)]
struct AskedAnswer {
    verdict: String,
    reason: String,
    sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    queues: Vec<String>,
    /// The revision of the policy that judged. `None`: the answer names none.
    policy: Option<u64>,
    /// The mode of an allowed supervision. The next three keys are about it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asterisk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freeswitch: Option<String>,
    /// Whether the question was allowed and, with `--do`, carried out.
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

pub(super) fn run(folder: &Path, options: &AskArguments, out: &mut impl Write) -> io::Result<u8> {
    let settings = match config::load_process_whole(folder) {
        Ok(settings) => settings,
        Err(problems) => return print_problems(&problems, options.json, out),
    };
    let answer = match ask(folder, &settings, options) {
        Ok(answer) => answer,
        Err(AskError::AdminClient(AdminClientError::Address(AddressError::Configuration(problems)))) => {
            return print_problems(&problems, options.json, out);
        }
        Err(error) => {
            return print_error(&error, options.json, out);
        }
    };
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&answer).map_err(io::Error::other)?)?;
    } else {
        print(&answer, out)?;
    }
    Ok(0)
}

fn ask(folder: &Path, settings: &ProcessSettings, options: &AskArguments) -> Result<AskedAnswer, AskError> {
    let pairs = options.question.pairs();
    let lease_seconds = pairs.event().map_err(AskError::NoQuestion)?.lease_seconds;
    let needs_meaning = options.question.is_dialed() && !options.does;
    let mut answer = AskedAnswer::default();
    for _ in 0..ASK_AGAIN_MAX {
        let explained: Option<Explained> = if options.explain || needs_meaning {
            let query: Vec<(&str, &str)> = pairs.iter().collect();
            Some(AdminClient::to_read(folder)?.get("explain", &query)?)
        } else {
            None
        };
        answer = match &explained {
            Some(Explained { policy, means: None, explanation }) if needs_meaning => {
                if explanation.verdict == "error" {
                    return Err(AskError::NotExplained {
                        reason: explanation.reason.to_string(),
                        sentence: explanation.sentence.to_string(),
                    });
                }
                // Digits that are no feature code have no action to ask about: the explanation is the answer.
                AskedAnswer::explained(*policy, explanation)
            }
            _ => {
                let mut peer = LineClient::dial(&settings.listen)?;
                present_token(&mut peer, settings)?;
                let meaning = explained.as_ref().and_then(|explained| explained.means.as_ref());
                AskedAnswer::replied(&peer.ask(&line_of(options, &pairs, meaning))?, options.does, lease_seconds)?
            }
        };
        let Some(Explained { policy, explanation, .. }) = explained else { break };
        let fits = answer.policy == Some(policy) && answer.reason == explanation.reason;
        if options.explain {
            answer.explanation = Some(explanation);
        }
        // A question that was carried out is not asked again to get a fitting explanation.
        if fits || options.does {
            break;
        }
    }
    Ok(answer)
}

/// The question as a line of the dialect, without its id. Without `--do`, dialed digits are replaced by their meaning.
fn line_of(options: &AskArguments, pairs: &QuestionPairs, meaning: Option<&DialedMeaning>) -> String {
    let verb = match (options.question.is_dialed(), options.does) {
        (true, true) => "dial",
        (false, true) => "do",
        (_, false) => "may",
    };
    let mut words = vec![verb.to_owned()];
    for (key, value) in pairs.iter() {
        match meaning.filter(|_| !options.does && key == Key::Digits.name()) {
            None => words.push(format!("{key}={value}")),
            Some(DialedMeaning { action, queue, target }) => {
                words.push(format!("action={action}"));
                words.extend(queue.iter().map(|queue| format!("queue={queue}")));
                words.extend(target.iter().map(|target| format!("target={target}")));
            }
        }
    }
    words.join(" ")
}

/// Authenticates with the token of the configuration, if there is one.
fn present_token(peer: &mut LineClient, settings: &ProcessSettings) -> Result<(), AskError> {
    let Some(token) = &settings.listen.line_token else { return Ok(()) };
    let reply = peer.ask(&format!("auth token={}", String::from_utf8_lossy(token.reveal())))?;
    match reply.verdict.as_str() {
        "allow" => Ok(()),
        _ => Err(AskError::TokenRefused),
    }
}

impl AskedAnswer {
    /// The answer that the line listener gave. `lease_seconds`: those that the question names.
    fn replied(reply: &LineReply, does: bool, lease_seconds: Option<u32>) -> Result<Self, AskError> {
        let value = |key: &str| reply.value(key).map(str::to_owned);
        let reason = value("reason").ok_or(AskError::MissingReplyKey("reason"))?;
        if reply.verdict == "error" {
            let sentence = ErrorReason::with_code(&reason).map_or("", ErrorReason::sentence);
            let key = value("key").map_or(String::new(), |key| format!(" (key `{key}`)"));
            let help = match ErrorReason::with_code(&reason) {
                Some(ErrorReason::Unauthenticated) => {
                    "\n  help: set `[listen] line_token_file` to a token of the sidecar, or `addresses` or `users` in [[peers]]"
                }
                Some(ErrorReason::Overload) => "\n  help: see `queuewarden top`",
                _ => "",
            };
            return Err(AskError::NoDecision { reason, key, sentence, help });
        }
        let sentence = match reply.verdict.as_str() {
            // The organization's default lease is not known here: without `for` the sentence names no seconds.
            "allow" => AllowReason::with_code(&reason).map(|reason| match lease_seconds {
                Some(_) => Reason::Allow(reason).sentence_for(lease_seconds),
                None => reason.sentence().into(),
            }),
            _ => DenyReason::with_code(&reason).map(|reason| reason.sentence().into()),
        };
        let queues = value("queues").or_else(|| value("queue"));
        Ok(Self {
            verdict: reply.verdict.clone(),
            // A newer sidecar may have reasons that this program does not know.
            sentence: sentence.unwrap_or_default().into_owned(),
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

    /// The answer that the explanation promises, for digits that are no feature code.
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

fn print(answer: &AskedAnswer, out: &mut impl Write) -> io::Result<()> {
    let fitting = answer.explanation.as_ref().filter(|explanation| explanation.reason == answer.reason);
    if let Some(explanation) = fitting {
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
    if let (Some(explanation), None) = (&answer.explanation, fitting) {
        let heading = match DenyReason::with_code(&answer.reason) {
            Some(DenyReason::TooLate) => "nothing was done, because `until` was over; in time it would be:",
            Some(DenyReason::Overload | DenyReason::StateUnavailable | DenyReason::Internal) => {
                "nothing was done, because the sidecar could not; otherwise it would be:"
            }
            _ => "something changed while it was asked; a moment before or after, it was:",
        };
        writeln!(out, "{heading}")?;
        explain::print(explanation, out)?;
    }
    Ok(())
}
