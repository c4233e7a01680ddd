//! Property (TRUTH 1): however long the process is stopped between a transfer, its replacement and their answers, a
//! user replaces a call only if the PBX was told before that the call is offered to this user, and each offer is taken
//! once. What is answered `too_late` gave nobody a right and took nobody's.
//!
//! A stop is simulated: the clock of the test jumps between any two steps.

use queuewarden::config;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::{Awaited, Gate, check_until};
use queuewarden::policy::Policy;
use queuewarden::telephony::{Moment, QueueSet, UnixMillis};

use crate::properties::factor;
use crate::support::Folder;
use crate::support::random_source::RandomSource;

/// Seeds of a run, to be multiplied by [`factor`].
const SEEDS: u64 = 1_000;
const STEPS: usize = 50;
const START_MS: u64 = 1_764_288_000_000;
/// Users to whom the call is offered, and who try to replace it.
const OTHERS: [&str; 2] = ["1002", "1003"];

const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"
[[users]]
id = "alice"
extension = "1001"
roles = ["agent"]
[[users]]
id = "bob"
extension = "1002"
roles = ["agent"]
[[users]]
id = "carl"
extension = "1003"
roles = ["agent"]
"#;

/// A transfer or a replacement that the gate allowed.
struct Allowed {
    /// The user to whom the call is offered, or who replaces it.
    user: &'static str,
    is_transfer: bool,
    until: Option<UnixMillis>,
    awaited: Option<Awaited>,
    /// Whether the PBX was told the answer. `None`: it is not written yet.
    told: Option<bool>,
}

struct World<'g> {
    gate: &'g Gate,
    call: String,
    now_ms: u64,
    allowed: Vec<Allowed>,
}

impl<'g> World<'g> {
    fn new(gate: &'g Gate, seed: u64) -> Self {
        let mut world = Self { gate, call: format!("c-{seed}"), now_ms: START_MS, allowed: vec![] };
        assert!(world.ask("1001", "call.begin", None).unwrap().0.contains("reported"));
        world
    }

    fn until(&self, random: &mut RandomSource) -> Option<UnixMillis> {
        (!random.one_in(4)).then(|| UnixMillis(self.now_ms + random.below(150) as u64))
    }

    /// The answer, and what it waits for. `None`: the question is too late when it is read.
    fn ask(&mut self, actor: &str, action: &str, until: Option<UnixMillis>) -> Option<(String, Option<Awaited>)> {
        let until = until.map_or(String::new(), |until| format!(" until={}", until.0));
        let line = format!("1 do org=acme actor={actor} call={} action={action}{until}\n", self.call);
        let (mut room, mut output, mut dialect) = (vec![], vec![], Line::new(None));
        let Step::Ask { event, id, .. } = dialect.next(line.as_bytes(), &mut room, &mut output) else {
            panic!("{line}")
        };
        check_until(&event, UnixMillis(self.now_ms)).ok()?;
        let now = Moment { wall: UnixMillis(self.now_ms), uptime_ms: self.now_ms - START_MS };
        let awaited = self.gate.ask(&event, now, &mut QueueSet::new(), |outcome, awaited| {
            dialect.answer(id, &outcome, &mut output);
            awaited
        });
        Some((String::from_utf8(output).unwrap(), awaited))
    }

    fn transfer(&mut self, user: &'static str, until: Option<UnixMillis>) {
        if let Some((answer, awaited)) = self.ask("1001", &format!("call.transfer target={user}"), until)
            && !answer.contains("reason=overload")
        {
            assert!(answer.contains("reason=transfer_offered"), "{answer}");
            self.note(Allowed { user, is_transfer: true, until, awaited, told: None });
        }
    }

    fn replace(&mut self, user: &'static str, until: Option<UnixMillis>) {
        let Some((answer, awaited)) = self.ask(user, "call.replace", until) else { return };
        if answer.contains("reason=transfer_offered") {
            assert!(self.is_offered_to(user), "nobody was told that the call is offered to {user}");
            self.note(Allowed { user, is_transfer: false, until, awaited, told: None });
        } else {
            let is_open = self.allowed.iter().any(|allowed| allowed.told.is_none());
            assert!(is_open || !self.is_offered_to(user), "the PBX was told of an offer: {answer}");
        }
    }

    fn note(&mut self, mut allowed: Allowed) {
        // Without an end and without a log the answer is sent at once.
        allowed.told = (allowed.until.is_none() && allowed.awaited.is_none()).then_some(true);
        self.allowed.push(allowed);
    }

    /// Whether the last answer that the PBX was told of offers the call to this user. An offer that is taken by a
    /// question without an answer yet is not offered; `replace` asserts only what holds for both.
    fn is_offered_to(&self, user: &str) -> bool {
        let last = self.allowed.iter().rev().find(|allowed| allowed.told == Some(true));
        last.is_some_and(|last| last.is_transfer && last.user == user)
    }

    fn conclude(&mut self, position: usize) {
        let Allowed { until, awaited, told, .. } = &self.allowed[position];
        if told.is_none() {
            let told = self.gate.may_be_sent(*until, awaited.as_ref(), UnixMillis(self.now_ms));
            self.allowed[position].told = Some(told);
        }
    }
}

fn run(gate: &Gate, seed: u64) -> [usize; 2] {
    let mut random = RandomSource::new(seed);
    let mut world = World::new(gate, seed);
    for _ in 0..STEPS {
        let until = world.until(&mut random);
        match random.below(8) {
            0 | 1 => world.transfer(random.pick(&OTHERS), until),
            2 | 3 => world.replace(random.pick(&OTHERS), until),
            4 => world.now_ms += random.below(120) as u64,
            _ if world.allowed.is_empty() => {}
            _ => world.conclude(random.below(world.allowed.len())),
        }
    }
    for position in 0..world.allowed.len() {
        world.conclude(position);
    }
    OTHERS.into_iter().for_each(|user| world.replace(user, None));
    let late = |is_transfer| {
        let of_kind = world.allowed.iter().filter(|allowed| allowed.is_transfer == is_transfer);
        of_kind.filter(|allowed| allowed.told == Some(false)).count()
    };
    [late(true), late(false)]
}

#[test]
fn nobody_replaces_a_call_by_an_offer_that_was_too_late_and_no_late_replacement_takes_one() {
    let (folder, gate) = (Folder::with("acme.toml", ORGANIZATION), Gate::default());
    drop(gate.publish(config::load(folder.path(), &Policy::default()).unwrap().policy));
    let mut late = [0, 0];
    for seed in 0..SEEDS * u64::from(factor()) {
        let these = run(&gate, seed);
        late = [late[0] + these[0], late[1] + these[1]];
    }
    assert!(late[0] > 1_000 && late[1] > 100, "late transfers and replacements: {late:?}");
}
