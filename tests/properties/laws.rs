//! Laws that hold in every small world, tested in all of them.

use std::collections::HashMap;

use queuewarden::config;
use queuewarden::decision::Outcome;
use queuewarden::event::{Event, Intent, Request};
use queuewarden::gate::{Counts, Gate};
use queuewarden::policy::model::SettingSet;
use queuewarden::policy::resolve::Question;
use queuewarden::policy::{Organization, Policy};
use queuewarden::telephony::{QueueSet, Token, UserId};

use crate::properties::events::RandomQuestion;
use crate::properties::models::{GOTO, MODELS, VOXIMPLANT};
use crate::properties::side_by_side::ProductAnswer;
use crate::properties::small_worlds::{
    Allowed, GOTO_SETTINGS, NOW, Person, all_events, all_settings, allowed, decide_all, goto_actors, goto_targets,
    organization, resolve_all, session_states, settings, shipped, voximplant_people,
};
use crate::properties::worlds::RandomOrganization;
use crate::support::random_source::RandomSource;

#[test]
fn fewer_rights_and_tighter_limits_never_allow_more() {
    let model = shipped("goto");
    let people = |actor: Person, target: Person| [("a", "1001", actor), ("t", "1002", target)];
    let template = organization(0, "o", &model, &people(Person::default(), Person::default()));
    let policy = Policy::new(1, [template]);
    let questions = resolve_all(&policy, &all_events(&GOTO, &model, "a"));
    let words = |position: usize| {
        let Question { action, queue, target, attributes, .. } = questions[position];
        format!("{} queue={queue:?} target={target:?} {:?}", action.name, attributes.iter().collect::<Vec<_>>())
    };
    let states = session_states(&[UserId(0), UserId(1)]);
    let others: Vec<&str> = GOTO.settings.iter().copied().filter(|name| !GOTO_SETTINGS.contains(name)).collect();
    let mut combinations = all_settings(&model, &GOTO_SETTINGS, &[]);
    combinations.extend(all_settings(&model, &GOTO_SETTINGS, &others));
    let supervision = |watches: bool| {
        let supervision = questions.iter().enumerate().filter(move |(_, question)| {
            let name = &question.action.name;
            name.starts_with("call.")
                && !question.action.grants.is_empty()
                && question.target.is_some()
                && (watches || **name != *"call.watch")
                || name.starts_with("agent.")
        });
        supervision.fold(Allowed::default(), |set, (position, _)| set.with(position))
    };
    // With `watch_colleagues` everybody may watch.
    let colleagues = settings(&model, &["watch_colleagues"]);
    let (supervision, without_watching) = (supervision(true), supervision(false));
    let mut queue_buffer = QueueSet::new();
    let mut decisions = 0;
    let actors = goto_actors();
    for target in goto_targets() {
        // Indexed by the queues that the target serves, the actor, the settings and the sessions.
        let mut table: Vec<Vec<Vec<[Allowed; 2]>>> = vec![];
        for serves in 0..4 {
            let by_actor = actors.iter().map(|&actor| {
                let mut organization = organization(0, "o", &model, &people(actor, Person { serves, ..target }));
                let by_settings = combinations.iter().map(|&settings| {
                    organization.settings = settings;
                    decisions += 2 * questions.len();
                    states.each_ref().map(|state| allowed(&organization, &questions, state, &mut queue_buffer))
                });
                by_settings.collect()
            });
            table.push(by_actor.collect());
        }
        let check = |what: &str, less: (usize, usize, usize), more: (usize, usize, usize)| {
            let [less_allowed, more_allowed] =
                [less, more].map(|(serves, actor, combination)| &table[serves][actor][combination]);
            for (state, (less_allowed, more_allowed)) in less_allowed.iter().zip(more_allowed).enumerate() {
                if let Some(beyond) = less_allowed.first_beyond(more_allowed) {
                    panic!(
                        "{what} allows {}: actor {:?}, target {target:?} serving {}, settings {:?}, state {state}",
                        words(beyond),
                        actors[less.1],
                        less.0,
                        combinations[less.2]
                    );
                }
            }
        };
        for (serves, by_actor) in table.iter().enumerate() {
            for (actor, by_settings) in by_actor.iter().enumerate() {
                for (combination, by_state) in by_settings.iter().enumerate() {
                    if combination & 1 == 0 {
                        check("the queue limit (V39)", (serves, actor, combination + 1), (serves, actor, combination));
                    }
                    for bit in 0..7 {
                        if actor & 1 << bit != 0 {
                            let less = (serves, actor & !(1 << bit), combination);
                            check("the removal of a role or an assignment", less, (serves, actor, combination));
                        }
                    }
                    for bit in 0..2 {
                        if serves & 1 << bit != 0 {
                            let less = (serves & !(1 << bit), actor, combination);
                            check("the removal of an assignment of the target", less, (serves, actor, combination));
                        }
                    }
                    let roles = actors[actor].roles;
                    let may_supervise = combination & 1 << 4 != 0;
                    if roles & 0b010 == 0 && !(roles & 0b100 != 0 && may_supervise) {
                        for allowed in by_state {
                            let none = Allowed::default();
                            let mut supervised = *allowed;
                            let mask = if combinations[combination].meets(colleagues) {
                                without_watching
                            } else {
                                supervision
                            };
                            supervised.0.iter_mut().zip(mask.0).for_each(|(word, mask)| *word &= mask);
                            let first = supervised.first_beyond(&none).map(words);
                            assert_eq!(first, None, "{:?} supervises", actors[actor]);
                        }
                    }
                }
            }
        }
    }
    println!("{decisions} decisions on {} questions", questions.len());
}

#[test]
fn in_voximplant_fewer_rights_never_allow_more_either() {
    let model = &VOXIMPLANT;
    let compiled = shipped(model.name);
    let people = |actor: Person, target: Person| [("a", "1001", actor), ("t", "1002", target)];
    let template = organization(0, "o", &compiled, &people(Person::default(), Person::default()));
    let policy = Policy::new(1, [template]);
    let questions = resolve_all(&policy, &all_events(model, &compiled, "a"));
    let combinations = all_settings(&compiled, model.settings, &[]);
    let [state, _] = session_states(&[]);
    let mut queue_buffer = QueueSet::new();
    let actors: Vec<Person> = voximplant_people().into_iter().filter(|person| !person.protected).collect();
    let targets: Vec<Person> =
        voximplant_people().into_iter().filter(|person| person.supervises == 0 && person.leads == 0).collect();
    let position_of = |person: Person| actors.iter().position(|&actor| actor == person).unwrap();
    let less: Vec<Vec<usize>> = actors
        .iter()
        .map(|&actor| {
            let without = [
                Person { roles: 0, ..actor },
                Person { serves: 0, ..actor },
                Person { edits: 0, ..actor },
                Person { supervises: 0, edits: 0, ..actor },
                Person { leads: 0, ..actor },
            ];
            without.into_iter().map(position_of).collect()
        })
        .collect();
    let mut decisions = 0;
    for &target in &targets {
        for &settings in &combinations {
            let allowed: Vec<Allowed> = actors
                .iter()
                .map(|&actor| {
                    let mut organization = organization(0, "o", &compiled, &people(actor, target));
                    organization.settings = settings;
                    decisions += questions.len();
                    allowed(&organization, &questions, &state, &mut queue_buffer)
                })
                .collect();
            for (actor, fewer) in less.iter().enumerate() {
                for &less in fewer {
                    if let Some(beyond) = allowed[less].first_beyond(&allowed[actor]) {
                        let (action, less) = (&questions[beyond].action.name, actors[less]);
                        panic!("{less:?} may {action}, and {:?} may not; target {target:?}", actors[actor]);
                    }
                }
                let supervises = |position: &usize| {
                    let name = &questions[*position].action.name;
                    let prefixes = ["agent.", "conversation.view", "call.listen", "call.barge", "call.join"];
                    prefixes
                        .iter()
                        .chain(&["call.replace", "call.watch"])
                        .any(|combination| name.starts_with(combination))
                };
                if actors[actor].roles <= 1 {
                    let mut supervised = Allowed::default();
                    for position in (0..questions.len()).filter(supervises) {
                        supervised = supervised.with(position);
                    }
                    let both: Vec<u64> =
                        supervised.0.iter().zip(allowed[actor].0).map(|(one, other)| one & other).collect();
                    assert_eq!(both, [0; 16], "{:?} supervises {target:?}", actors[actor]);
                }
            }
        }
    }
    println!("{decisions} decisions on {} questions", questions.len());
}

#[test]
fn users_with_the_same_role_and_assignments_get_the_same_answer() {
    for model in MODELS {
        let compiled = shipped(model.name);
        let (actors, targets) = if model.name == "goto" {
            (goto_actors(), goto_targets())
        } else {
            let people = voximplant_people();
            let targets = people.iter().copied().filter(|person| person.supervises == 0 && person.leads == 0);
            (people.iter().copied().step_by(3).collect(), targets.step_by(5).collect())
        };
        // The twin has the roles and assignments of the actor, another id and extension, and is protected.
        let people = |actor: Person, target: Person| {
            let twin = Person { protected: true, ..actor };
            [("a", "1001", actor), ("t", "1002", target), ("zoe", "77", twin)]
        };
        let template = organization(0, "o", &compiled, &people(Person::default(), Person::default()));
        let policy = Policy::new(1, [template]);
        let actor_questions = all_events(model, &compiled, "a");
        let twin_questions: Vec<Event<'_>> = actor_questions.iter().map(|event| as_twin(event)).collect();
        let (actor_questions, twin_questions) =
            (resolve_all(&policy, &actor_questions), resolve_all(&policy, &twin_questions));
        assert_eq!(actor_questions.len(), twin_questions.len());
        let states = session_states(&[UserId(0), UserId(1), UserId(2)]);
        let on: Vec<&str> = model.settings.to_vec();
        let without_limit: Vec<&str> = on.iter().copied().filter(|name| !name.contains("limit")).collect();
        let combinations = [compiled.default_settings(), settings(&compiled, &on), settings(&compiled, &without_limit)];
        let mut queue_buffer = QueueSet::new();
        let mut other = QueueSet::new();
        for &actor in &actors {
            for &target in &targets {
                let mut organization = organization(0, "o", &compiled, &people(actor, Person { serves: 1, ..target }));
                for settings in combinations {
                    organization.settings = settings;
                    for state in &states {
                        let one = decide_all(&organization, &actor_questions, state, &mut queue_buffer);
                        let twin = decide_all(&organization, &twin_questions, state, &mut other);
                        for (position, (one, twin)) in one.zip(twin).enumerate() {
                            let action = &actor_questions[position].action.name;
                            assert_eq!(one, twin, "R20: {action}, actor {actor:?}, target {target:?}");
                        }
                    }
                }
            }
        }
    }
}

fn token(text: &str) -> Token<'_> {
    Token::parse(text.as_bytes()).unwrap()
}

/// The same question with the twin as actor. If the actor was the target, the twin is the target.
fn as_twin<'e>(event: &Event<'e>) -> Event<'e> {
    let twin = Token::parse("zoe");
    let is_self_target = event.target == Some(event.actor);
    Event { actor: twin.unwrap(), target: if is_self_target { twin } else { event.target }, ..*event }
}

#[test]
fn taking_a_grant_from_a_model_never_allows_more() {
    const ORGANIZATIONS: usize = 48;
    const EVENTS: usize = 80;
    let mut random_source = RandomSource::new(20);
    for model in MODELS {
        let folder = crate::properties::folder_with_models();
        let mut organizations = vec![];
        while organizations.len() < ORGANIZATIONS {
            let organization = RandomOrganization::new(&format!("o{}", organizations.len()), &mut random_source);
            if organization.model.name == model.name {
                let file = folder.path().join(format!("organizations/{}.toml", organization.name));
                std::fs::write(file, organization.for_the_product()).unwrap();
                organizations.push(organization);
            }
        }
        let mut questions = vec![];
        for organization in &organizations {
            questions.extend((0..EVENTS).map(|_| RandomQuestion {
                may: true,
                ..RandomQuestion::draw(organization, organization, &mut random_source)
            }));
        }
        let answers = || -> Vec<ProductAnswer> {
            let gate = Gate::default();
            drop(gate.publish(config::load(folder.path(), &Policy::default()).unwrap().policy));
            let mut queue_buffer = QueueSet::new();
            let ask = |question: &RandomQuestion| {
                gate.ask(&question.event(), NOW, &mut queue_buffer, |outcome, _| ProductAnswer::of(&outcome))
            };
            questions.iter().map(ask).collect()
        };
        let whole = answers();
        let file = folder.path().join(format!("models/{}.toml", model.name));
        let text = std::fs::read_to_string(&file).unwrap();
        let mut mattered = 0;
        for less in without_each_grant(&text) {
            std::fs::write(&file, &less).unwrap();
            let mut differs = false;
            for ((question, before), after) in questions.iter().zip(&whole).zip(answers()) {
                differs |= before.comparable.verdict != after.comparable.verdict;
                let more = before.comparable.verdict != "allow" && after.comparable.verdict == "allow";
                assert!(!more, "{}{:?} became {:?}", question.line("7"), before.comparable, after.comparable);
            }
            mattered += usize::from(differs);
        }
        let grants = without_each_grant(&text).count();
        println!("{}: {mattered} of {grants} grants made a difference", model.name);
        assert!(mattered * 10 > grants * 5, "{}: only {mattered} of {grants} grants made a difference", model.name);
    }
}

/// The texts of a model with one grant left out: without the first, without the second, and so on.
fn without_each_grant(text: &str) -> impl Iterator<Item = String> {
    let mut blocks: Vec<String> = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("[[") {
            blocks.push(String::new());
        }
        let block = blocks.last_mut().unwrap();
        block.push_str(line);
        block.push('\n');
    }
    let grants: Vec<usize> = (0..blocks.len()).filter(|&position| blocks[position].starts_with("[[grants]]")).collect();
    grants.into_iter().map(move |left_out| {
        let kept = blocks.iter().enumerate().filter(|(position, _)| *position != left_out);
        kept.map(|(_, block)| block.as_str()).collect()
    })
}

#[test]
fn barring_unassigned_logins_ends_no_session_and_opens_no_queue() {
    let model = shipped("goto");
    let gate = Gate::default();
    let mut queue_buffer = QueueSet::new();
    let allow = settings(&model, &["allow_unassigned_login"]);
    // Every pair of users with every role and assignment, each pair in its own organization.
    let everybody: Vec<Person> =
        (0..32).map(|bits: u8| Person { roles: u16::from(bits % 8), serves: bits / 8, ..Person::default() }).collect();
    let pairs: Vec<(String, [Person; 2])> = (0..everybody.len() * everybody.len())
        .map(|pair| (format!("o{pair}"), [everybody[pair / everybody.len()], everybody[pair % everybody.len()]]))
        .collect();
    let publish = |revision: u64, settings: SettingSet| {
        let organizations = pairs.iter().enumerate().map(|(position, (name, [a, t]))| {
            let id = u16::try_from(position).unwrap();
            let people = [("a", "1001", *a), ("t", "1002", *t)];
            Organization { settings, ..organization(id, name, &model, &people) }
        });
        drop(gate.publish(Policy::new(revision, organizations)));
    };
    let mut ask = |organization: &str, actor: &str, action: &str, queue: &str, intent: Intent| -> &'static str {
        let request = Request::Action(token(action));
        let event = Event {
            queue: Token::parse(queue.as_bytes()),
            ..Event::new(intent, token(organization), token(actor), request)
        };
        gate.ask(&event, NOW, &mut queue_buffer, |outcome, _| match outcome {
            Outcome::Decided(answer) => answer.reason.code(),
            Outcome::Faulty(error) => error.reason.code(),
        })
    };
    publish(1, allow);
    let mut logged_in: HashMap<(usize, &str, &str), bool> = HashMap::new();
    for (position, (name, _)) in pairs.iter().enumerate() {
        for (bit, (actor, queue)) in [("a", "q0"), ("a", "q1"), ("t", "q0"), ("t", "q1")].into_iter().enumerate() {
            // Every combination of login sessions of both users occurs with some roles and assignments.
            let logs_in = position >> bit & 1 == 0 || position % 7 == bit;
            if logs_in {
                let reason = ask(name, actor, "queue.login", queue, Intent::Do);
                assert!(["assigned", "unassigned_allowed"].contains(&reason), "{reason}");
            }
            logged_in.insert((position, actor, queue), logs_in);
        }
    }
    let before = gate.counts();
    publish(2, settings(&model, &[]));
    let after = gate.counts();
    assert_eq!((before.assigned, before.unassigned), (after.assigned, after.unassigned), "V40");
    assert_eq!((before.kept, after.kept), (0, after.unassigned), "every session in an unassigned queue is kept");
    for (position, (name, people)) in pairs.iter().enumerate() {
        for (actor, person) in ["a", "t"].into_iter().zip(people) {
            for (bit, queue) in ["q0", "q1"].into_iter().enumerate() {
                let is_logged_in = logged_in[&(position, actor, queue)];
                let serves = person.serves & 1 << bit != 0;
                let again = match (is_logged_in, serves) {
                    (true, _) => "already_logged_in",
                    (false, true) => "assigned",
                    (false, false) => "unassigned_barred",
                };
                assert_eq!(ask(name, actor, "queue.login", queue, Intent::May), again, "R31, R34");
                let logout = if is_logged_in { "logged_out" } else { "not_logged_in" };
                assert_eq!(ask(name, actor, "queue.logout", queue, Intent::Do), logout, "V40, R32");
                let back = if serves { "assigned" } else { "unassigned_barred" };
                assert_eq!(ask(name, actor, "queue.login", queue, Intent::May), back, "R33");
            }
        }
    }
    assert_eq!(gate.counts(), Counts::default());
}

#[test]
fn nothing_crosses_organizations() {
    for model in MODELS {
        let compiled = shipped(model.name);
        let events = all_events(model, &compiled, "a");
        let people: Vec<Person> = if model.name == "goto" {
            goto_actors().into_iter().step_by(9).collect()
        } else {
            voximplant_people().into_iter().step_by(29).collect()
        };
        let mut queue_buffer = QueueSet::new();
        for (round, &here) in people.iter().enumerate() {
            for &there in &people {
                let ours = || organization(0, "o", &compiled, &[("a", "1001", here), ("t", "1002", here)]);
                // The other organization has users of the same names, and a user that only it has.
                let others = [("a", "1002", there), ("t", "1001", there), ("only", "1003", there)];
                let neighbour = organization(1, "n", &compiled, &others);
                let (alone, together) = (Gate::default(), Gate::default());
                drop(alone.publish(Policy::new(1, [ours()])));
                drop(together.publish(Policy::new(1, [ours(), neighbour])));
                for event in &events {
                    let event = Event { intent: Intent::Do, ..*event };
                    let expected =
                        alone.ask(&event, NOW, &mut queue_buffer, |outcome, _| ProductAnswer::of(&outcome).comparable);
                    let to_neighbour = Event { organization: Token::parse("n").unwrap(), ..event };
                    together.ask(&to_neighbour, NOW, &mut queue_buffer, |_, _| ());
                    let comparable = together
                        .ask(&event, NOW, &mut queue_buffer, |outcome, _| ProductAnswer::of(&outcome).comparable);
                    assert_eq!(comparable, expected, "{event:?} depends on the neighbour {there:?}");
                    let stranger = Event { actor: Token::parse("only").unwrap(), ..event };
                    let verdict = together.ask(&stranger, NOW, &mut queue_buffer, |outcome, _| {
                        ProductAnswer::of(&outcome).comparable.verdict
                    });
                    assert_ne!(verdict, "allow", "{stranger:?}: the actor is a user of the neighbour");
                    if event.target.is_some() {
                        let stranger = Event { target: Token::parse("only"), ..event };
                        let comparable = together.ask(&stranger, NOW, &mut queue_buffer, |outcome, _| {
                            ProductAnswer::of(&outcome).comparable
                        });
                        let targetless = comparable.target.is_none();
                        assert!(
                            comparable.verdict != "allow" || targetless,
                            "{stranger:?}: the target is a user of the neighbour: {comparable:?}"
                        );
                    }
                }
                if round % 4 != 0 {
                    break;
                }
            }
        }
    }
}
