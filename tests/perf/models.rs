//! Both role models at 100,000 users: the decisions per second of each, and their ratio.
//!
//! The same users, queues, supervisors and groups are loaded once under each model and asked the same questions. The
//! models take turns, so that other work on the machine slows both; the ratio is within one run.
//!
//! ```text
//! cargo bench --bench benchmarks -- models
//! ```

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use crate::support::random_source::RandomSource;
use queuewarden::config::load;
use queuewarden::decision::{Outcome, Reason};
use queuewarden::event::{Event, Intent, Request};
use queuewarden::gate::Gate;
use queuewarden::policy::Policy;
use queuewarden::telephony::{Moment, QueueSet, Token, UnixMillis};

const MODELS: [&str; 2] = ["goto", "voximplant"];
const USERS: usize = 100_000;
/// Users of one group; the first leads it.
const TEAM: usize = 100;
const QUEUES: usize = 1_000;
/// Queues that a team serves between them; each of its agents serves half of them.
const QUEUES_OF_A_TEAM: usize = 8;
/// Scenes of questions; each is a login, a logout and three more pairs: see [`PlannedQuestion::scene`].
const SCENES: usize = 4_096;
/// Many short rounds, so that other work on the machine disturbs both models.
const ROUNDS: usize = 201;
const SEED: u64 = 1;
const NOW: Moment = Moment { wall: UnixMillis(1_000_000_000), uptime_ms: 1 };

// The world -----------------------------------------------------------------------------------------------------------

const fn leader_of(team: usize) -> usize {
    team * TEAM
}

/// The queue at this position among those of the team. Neighbours share none, so another team is out of scope.
const fn queue_of(team: usize, position: usize) -> usize {
    (team * QUEUES_OF_A_TEAM + position) % QUEUES
}

/// The positions of the queues that the agent serves.
fn served(user: usize) -> impl Iterator<Item = usize> {
    (0..QUEUES_OF_A_TEAM / 2).map(move |step| (user + 2 * step) % QUEUES_OF_A_TEAM)
}

/// The organization of one model. Voximplant Kit has one user more, because it needs an owner.
fn write(folder: &Path, model: &str) {
    let queue = |number: usize| format!("[[queues]]\nid = \"queue-{number}\"\nnumber = \"{}\"\n", 5_000 + number);
    let user = |number: usize| format!("\"user-{number}\"");
    let group = |team: usize| {
        let members: Vec<String> = (leader_of(team)..leader_of(team + 1)).map(user).collect();
        let leader = user(leader_of(team));
        format!("[[groups]]\nid = \"team-{team}\"\nsupervisors = [{leader}]\nmembers = [{}]\n", members.join(", "))
    };
    let mut users = String::from("id,extension,roles,queues,supervises,edits\n");
    for number in 0..USERS {
        let team = number / TEAM;
        let queues = |positions: &mut dyn Iterator<Item = usize>| {
            positions.map(|position| format!("queue-{}", queue_of(team, position))).collect::<Vec<_>>().join(" ")
        };
        let all = queues(&mut (0..QUEUES_OF_A_TEAM));
        users += &if number == leader_of(team) {
            format!("user-{number},{},supervisor,,{all},{all}\n", 2_000_000 + number)
        } else {
            format!("user-{number},{},agent,{},,\n", 2_000_000 + number, queues(&mut served(number)))
        };
    }
    if model == "voximplant" {
        users += "boss,1000000,owner,,,\n";
    }
    let queues: String = (0..QUEUES).map(queue).collect();
    let groups: String = (0..USERS / TEAM).map(group).collect();
    let organization =
        format!("organization = \"big\"\nmodel = \"{model}\"\nusers_csv = \"users.csv\"\n{queues}{groups}");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models").join(format!("{model}.toml"));
    fs::create_dir(folder.join("models")).unwrap();
    fs::create_dir(folder.join("organizations")).unwrap();
    fs::copy(models, folder.join("models").join(format!("{model}.toml"))).unwrap();
    fs::write(folder.join("queuewarden.toml"), "").unwrap();
    fs::write(folder.join("organizations/big.toml"), organization).unwrap();
    fs::write(folder.join("organizations/users.csv"), users).unwrap();
}

fn gate(model: &str) -> Gate {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), model);
    let gate = Gate::default();
    drop(gate.publish(load(folder.path(), &Policy::default()).unwrap().policy));
    gate
}

// The questions -------------------------------------------------------------------------------------------------------

/// A question before it is parsed, and whether it is allowed.
struct PlannedQuestion {
    actor: String,
    action: &'static str,
    queue: String,
    target: Option<String>,
    allowed: bool,
}

impl PlannedQuestion {
    /// The questions of an agent and a supervisor of one team. They end what they begin, so every pass starts from the
    /// same state.
    fn scene(random_source: &mut RandomSource) -> Vec<Self> {
        let team = random_source.below(USERS / TEAM);
        let (agent, colleague) =
            (leader_of(team) + 1 + random_source.below(TEAM - 1), leader_of(team) + 1 + random_source.below(TEAM - 1));
        let stranger = leader_of((team + 1) % (USERS / TEAM)) + 1 + random_source.below(TEAM - 1);
        let own = served(agent).next().unwrap();
        let (queue, unassigned) = (queue_of(team, own), queue_of(team, own + 1));
        let elsewhere = queue_of(team + 1, own);
        let extension = |user: usize| (2_000_000 + user).to_string();
        let question = |actor: usize, action, queue: usize, target: Option<usize>, allowed| Self {
            actor: extension(actor),
            action,
            queue: (5_000 + queue).to_string(),
            target: target.map(extension),
            allowed,
        };
        let supervisor = leader_of(team);
        let theirs = queue_of(team, served(colleague).next().unwrap());
        vec![
            question(agent, "queue.login", queue, None, true),
            question(agent, "queue.login", unassigned, None, false),
            question(supervisor, "call.listen", theirs, Some(colleague), true),
            question(supervisor, "call.listen", elsewhere, Some(stranger), false),
            question(supervisor, "call.barge", theirs, Some(colleague), true),
            question(supervisor, "call.barge", elsewhere, Some(stranger), false),
            question(agent, "queue.logout", queue, None, true),
            question(supervisor, "agent.login", theirs, Some(colleague), true),
            question(supervisor, "agent.login", elsewhere, Some(stranger), false),
            question(supervisor, "agent.logout", theirs, Some(colleague), true),
        ]
    }

    fn event(&self) -> Event<'_> {
        fn token(text: &str) -> Token<'_> {
            Token::parse(text.as_bytes()).unwrap()
        }
        let request = Request::Action(token(self.action));
        Event {
            queue: Some(token(&self.queue)),
            target: self.target.as_deref().map(token),
            ..Event::new(Intent::Do, token("big"), token(&self.actor), request)
        }
    }
}

fn is_allowed(gate: &Gate, event: &Event<'_>, queue_buffer: &mut QueueSet) -> bool {
    gate.ask(event, NOW, queue_buffer, |outcome, _| match outcome {
        Outcome::Decided(answer) => matches!(answer.reason, Reason::Allow(_)),
        Outcome::Faulty(_) => false,
    })
}

// The measurement -----------------------------------------------------------------------------------------------------

/// Decisions per second of one round.
fn round(gate: &Gate, events: &[Event<'_>], queue_buffer: &mut QueueSet) -> f64 {
    let started = Instant::now();
    let mut allowed = 0_usize;
    for event in events {
        allowed += usize::from(is_allowed(black_box(gate), black_box(event), queue_buffer));
    }
    black_box(allowed);
    events.len() as f64 / started.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

pub fn run(_arguments: &[String]) {
    let gates = MODELS.map(gate);
    let mut random_source = RandomSource::new(SEED);
    let questions: Vec<PlannedQuestion> =
        (0..SCENES).flat_map(|_| PlannedQuestion::scene(&mut random_source)).collect();
    let events: Vec<Event<'_>> = questions.iter().map(PlannedQuestion::event).collect();
    let mut queue_buffer = QueueSet::new();
    // Only questions that both models answer alike are compared.
    for (gate, model) in gates.iter().zip(MODELS) {
        for (question, event) in questions.iter().zip(&events) {
            let allowed = is_allowed(gate, event, &mut queue_buffer);
            assert_eq!(allowed, question.allowed, "{model}: {event:?}");
        }
    }
    let mut rates = [vec![], vec![]];
    for number in 0..ROUNDS {
        // The first model of a round changes.
        for model in [number % 2, 1 - number % 2] {
            rates[model].push(round(&gates[model], &events, &mut queue_buffer));
        }
    }
    let [goto, voximplant] = rates.map(median);
    println!("{USERS} users, {} questions, {ROUNDS} rounds in turn", events.len());
    println!("goto        {goto:>10.0} decisions/s");
    println!("voximplant  {voximplant:>10.0} decisions/s");
    println!("voximplant / goto = {:.3}", voximplant / goto);
}
