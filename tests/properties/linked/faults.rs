//! Everything that happens to sessions and members without a link.

use super::pbx::{Key, ModelPbx, PbxMember};
use super::world::{ORGANIZATIONS, QUEUES, Work, World, extension, keys};
use queuewarden::config::links::MembersMode;
use queuewarden::links::command::PollKind;

/// Another program, or a phone, adds a member.
pub fn add(pbx: &ModelPbx, (queue, extension): &Key, is_fixed: bool, penalty: u32, paused: bool) {
    add_named(pbx, queue, &ModelPbx::name_of(extension), is_fixed, penalty, paused);
}

fn add_named(pbx: &ModelPbx, queue: &str, name: &str, is_fixed: bool, penalty: u32, paused: bool) {
    if let Some(members) = pbx.state().queues.get_mut(queue) {
        members.entry(name.to_owned()).or_insert(PbxMember { paused, by_link: false, penalty, is_fixed });
    }
}

/// Another program removes a member. A reload of the PBX also removes members of its configuration.
fn remove(pbx: &ModelPbx, (queue, extension): &Key, is_reload: bool) {
    if let Some(members) = pbx.state().queues.get_mut(queue) {
        let name = ModelPbx::name_of(extension);
        if members.get(&name).is_some_and(|member| is_reload || !member.is_fixed) {
            members.remove(&name);
        }
    }
}

/// Something happens.
pub fn happen(world: &mut World) {
    let ms = match world.random.below(12) {
        0 => 61_000,
        1..=3 => 11_000,
        _ => world.random.below(1_500) as u64,
    };
    world.pass(ms);
    match world.random.below(24) {
        0..=3 => log_in_by_phone(world),
        4 => log_out_by_phone(world),
        5 | 6 => supervisor(world),
        7 => {
            let (organization, agent) = (world.random.below(2), world.random.below(4));
            world.end_sessions(organization, &format!("a{agent}"));
        }
        8 => pause(world),
        9..=11 => foreign_change(world),
        12 => restart_pbx(world),
        13 => connection_fault(world),
        14 => {
            world.log.push("a reload".to_owned());
            world.judged(|world| {
                configure(world);
                world.publish();
            });
        }
        15 => restart_sidecar(world),
        _ => work(world),
    }
}

/// A link does something.
fn work(world: &mut World) {
    let place = world.random.below(world.links.len());
    let kind = match world.random.below(12) {
        0 => PollKind::Adopt,
        1 => PollKind::Resume,
        2 => PollKind::DryRun([None, Some(MembersMode::Enforce)][world.random.below(2)]),
        _ => PollKind::Regular,
    };
    let what = match world.random.below(4) {
        0 => {
            let keys: Vec<_> = keys().collect();
            let (queue, extension) = keys[world.random.below(keys.len())].clone();
            Work::Look((queue.to_owned(), extension))
        }
        1 => Work::Changes,
        _ => Work::Poll(kind),
    };
    world.act(place, &what);
}

/// An agent of today: the place of the organization, of the agent, and a member of it.
fn agent(world: &mut World) -> (usize, usize, Key) {
    let (organization, agent) = (world.random.below(2), world.random.below(4));
    let number = world.configured[organization].extensions[agent].clone().unwrap_or_else(|| extension(agent, false));
    let queue = QUEUES[world.random.below(2)].to_owned();
    (organization, agent, (queue, number))
}

/// A PBX of the organization.
fn pbx_of(world: &mut World, organization: usize) -> usize {
    if organization == 0 { world.random.below(2) } else { 2 }
}

fn log_in_by_phone(world: &mut World) {
    let (organization, _, key) = agent(world);
    let place = pbx_of(world, organization);
    if !world.links[place].pbx.state().queues.contains_key(&key.0) {
        return;
    }
    let question = format!("actor={} via=phone action=queue.login queue={}", key.1, key.0);
    if world.ask(organization, &question, Some(&key)) {
        // The answer may be lost on its way, or the PBX may be slow.
        match world.random.below(8) {
            0 => {}
            1 => {
                let at = world.now().wall.0 + 500 + world.random.below(8_000) as u64;
                world.late.push((at, place, key));
            }
            _ => add(&world.links[place].pbx, &key, false, 0, false),
        }
    }
}

fn log_out_by_phone(world: &mut World) {
    let (organization, _, key) = agent(world);
    let question = format!("actor={} via=phone action=queue.logout queue={}", key.1, key.0);
    if world.ask(organization, &question, None) && !world.random.one_in(4) {
        let place = pbx_of(world, organization);
        remove(&world.links[place].pbx, &key, false);
        world.late.retain(|(_, _, late)| *late != key);
    }
}

fn supervisor(world: &mut World) {
    let (organization, _, (queue, number)) = agent(world);
    let question = if world.random.one_in(3) {
        format!("actor=2001 action=agent.logout target={number} queue={queue}")
    } else if world.random.one_in(2) {
        let seconds = 5 + world.random.below(60);
        format!("actor=2001 action=agent.login target={number} queue={queue} for={seconds}")
    } else {
        format!("actor=2001 action=agent.login target={number} queue={queue}")
    };
    world.ask(organization, &question, None);
}

fn pause(world: &mut World) {
    let (organization, _, (queue, number)) = agent(world);
    let action = world.random.pick(&["queue.pause", "queue.resume"]);
    world.ask(organization, &format!("actor={number} via=dashboard action={action} queue={queue}"), None);
}

/// Another program changes a queue.
fn foreign_change(world: &mut World) {
    let place = world.random.below(world.links.len());
    let keys: Vec<_> = keys().collect();
    let (queue, extension) = keys[world.random.below(keys.len())].clone();
    let key = (queue.to_owned(), extension);
    let random = &mut world.random;
    let (is_fixed, paused, penalty) = (random.one_in(4), random.one_in(3), u32::from(random.one_in(3)));
    let kind = random.below(8);
    let pbx = &world.links[place].pbx;
    world.log.push(format!("foreign change {kind} of {key:?} at {}", world.links[place].name));
    match kind {
        0..=2 => add(pbx, &key, is_fixed, penalty, paused),
        3 => remove(pbx, &key, is_fixed),
        4 => {
            let name = ["SIP/1001", "PJSIP/alice", "Local/1001@x/n"][penalty as usize];
            add_named(pbx, queue, name, is_fixed, penalty, paused);
        }
        _ => {
            let mut state = pbx.state();
            let member = state.queues.get_mut(queue).and_then(|members| members.get_mut(&ModelPbx::name_of(&key.1)));
            if let Some(member) = member {
                member.penalty = penalty;
                (member.paused, member.by_link) = (!member.paused, false);
            }
        }
    }
}

fn restart_pbx(world: &mut World) {
    let place = world.random.below(world.links.len());
    world.log.push(format!("{} starts again", world.links[place].name));
    world.links[place].pbx.restart();
}

fn connection_fault(world: &mut World) {
    let place = world.random.below(world.links.len());
    let (after, loses_answers) = (1 + world.random.below(12), world.random.one_in(2));
    let kind = world.random.below(3);
    world.log.push(format!("connection fault {kind} {after} {loses_answers} at {}", world.links[place].name));
    let pbx = &world.links[place].pbx;
    match kind {
        0 => pbx.drop_connection(),
        1 => {
            let mut state = pbx.state();
            (state.breaks_after, state.loses_answers) = (Some(after), loses_answers);
        }
        _ => pbx.state().refuses = after.min(4),
    }
}

/// The next configuration: users are removed or come back, numbers change, a queue goes or comes back.
fn configure(world: &mut World) {
    let organization = world.random.below(2);
    let random = &mut world.random;
    let agent = random.below(4);
    let configured = &mut world.configured[organization];
    match random.below(4) {
        0 => configured.extensions[agent] = None,
        1 | 2 => configured.extensions[agent] = Some(extension(agent, random.one_in(2))),
        _ => configured.has_second_queue = !configured.has_second_queue,
    }
    let line = format!("{}: {configured:?}", ORGANIZATIONS[organization]);
    world.log.push(line);
}

/// The sidecar is down for a while: agents go home, other programs change queues, a PBX may start again, users are
/// removed.
fn restart_sidecar(world: &mut World) {
    world.log.push("the sidecar ends".to_owned());
    world.restart(|world| {
        for _ in 0..world.random.below(3) {
            foreign_change(world);
        }
        if world.random.one_in(2) {
            let (organization, _, key) = agent(world);
            let place = pbx_of(world, organization);
            remove(&world.links[place].pbx, &key, false);
        }
        if world.random.one_in(4) {
            restart_pbx(world);
        }
        if world.random.one_in(2) {
            configure(world);
        }
    });
}
