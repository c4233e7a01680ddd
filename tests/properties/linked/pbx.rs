//! A PBX in process: queues and members, which phones, other programs and links change. It sends no event, so that
//! every change is silent; its connections break when a test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use queuewarden::links::members::pass::PolledQueue;
use queuewarden::links::members::{Member, MemberKey, Membership, PbxStart};
use queuewarden::links::pbx_connection::{ActionOutcome, Hint, LinkError, MemberAction, PbxConnection, SoughtMember};
use queuewarden::links::supervisions::Listener;

/// The number of a queue and the extension of a member.
pub type Key = (String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PbxMember {
    pub paused: bool,
    /// A link paused it in its own name.
    pub by_link: bool,
    pub penalty: u32,
    /// It is in the configuration of the PBX, and cannot be removed.
    pub is_fixed: bool,
}

#[derive(Debug)]
pub struct PbxState {
    /// How often it started.
    pub starts: u64,
    pub keeps_members: bool,
    /// Whether a link may ask when it started.
    pub shows_start: bool,
    /// The members by queue and name.
    pub queues: BTreeMap<String, BTreeMap<String, PbxMember>>,
    /// The number of the connection that works.
    connection: u64,
    /// The questions after which the connection breaks.
    pub breaks_after: Option<usize>,
    /// Whether the question that breaks the connection was carried out before.
    pub loses_answers: bool,
    /// How many changes in a row it refuses.
    pub refuses: usize,
}

#[derive(Clone, Debug)]
pub struct ModelPbx(Arc<Mutex<PbxState>>);

impl ModelPbx {
    pub fn new(queues: &[&str], keeps_members: bool, shows_start: bool) -> Self {
        let queues = queues.iter().map(|queue| ((*queue).to_owned(), BTreeMap::new())).collect();
        Self(Arc::new(Mutex::new(PbxState {
            starts: 1,
            keeps_members,
            shows_start,
            queues,
            connection: 0,
            breaks_after: None,
            loses_answers: false,
            refuses: 0,
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, PbxState> {
        self.0.lock().unwrap()
    }

    pub fn connect(&self) -> ModelConnection {
        let mut state = self.state();
        state.connection += 1;
        ModelConnection { pbx: self.clone(), number: state.connection }
    }

    /// The name of an extension, `PJSIP/1001`.
    pub fn name_of(extension: &str) -> String {
        format!("PJSIP/{extension}")
    }

    /// The members whose names are those of extensions.
    pub fn parsed(&self) -> BTreeMap<Key, PbxMember> {
        let state = self.state();
        let members = state.queues.iter().flat_map(|(queue, members)| {
            members.iter().filter_map(|(name, member)| Some(((queue.clone(), extension_of(name)?), member.clone())))
        });
        members.collect()
    }

    /// The names that no link can read, with their members.
    pub fn unparsed(&self) -> BTreeMap<Key, PbxMember> {
        let state = self.state();
        let members = state.queues.iter().flat_map(|(queue, members)| {
            let unparsed = members.iter().filter(|(name, _)| extension_of(name).is_none());
            unparsed.map(|(name, member)| ((queue.clone(), name.clone()), member.clone()))
        });
        members.collect()
    }

    /// The process ends, and another begins.
    pub fn restart(&self) {
        let mut state = self.state();
        state.starts += 1;
        state.connection += 1;
        let keeps_members = state.keeps_members;
        for members in state.queues.values_mut() {
            members.retain(|_, member| keeps_members || member.is_fixed);
            if !keeps_members {
                members.values_mut().for_each(|member| (member.paused, member.by_link) = (false, false));
            }
        }
    }

    pub fn drop_connection(&self) {
        self.state().connection += 1;
    }
}

fn extension_of(name: &str) -> Option<String> {
    let extension = name.strip_prefix("PJSIP/")?;
    (!extension.is_empty() && extension.bytes().all(|byte| byte.is_ascii_digit())).then(|| extension.to_owned())
}

/// A connection of a link.
#[derive(Debug)]
pub struct ModelConnection {
    pbx: ModelPbx,
    number: u64,
}

impl ModelConnection {
    /// The state, if the connection still works.
    fn ask<R>(&self, answer: impl FnOnce(&mut PbxState) -> R) -> Result<R, LinkError> {
        let mut state = self.pbx.state();
        if state.connection != self.number {
            return Err(LinkError::Closed);
        }
        if let Some(left) = &mut state.breaks_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.connection += 1;
                state.breaks_after = None;
                if state.loses_answers {
                    answer(&mut state);
                }
                return Err(LinkError::Closed);
            }
        }
        Ok(answer(&mut state))
    }
}

fn seen(member: &PbxMember) -> Member {
    Member {
        paused: member.paused,
        paused_by_link: member.paused && member.by_link,
        penalty: member.penalty,
        membership: if member.is_fixed { Membership::Fixed } else { Membership::Dynamic },
    }
}

fn change(state: &mut PbxState, key: &MemberKey, action: MemberAction) -> ActionOutcome {
    if state.refuses > 0 {
        state.refuses -= 1;
        return ActionOutcome::Refused;
    }
    let Some(members) = state.queues.get_mut(&*key.queue) else { return ActionOutcome::NotThere };
    let name = ModelPbx::name_of(&key.extension);
    match (action, members.get_mut(&name)) {
        (MemberAction::Add { penalty, paused }, None) => {
            members.insert(name, PbxMember { paused, by_link: false, penalty, is_fixed: false });
            ActionOutcome::Done
        }
        (MemberAction::Add { .. }, Some(_)) | (MemberAction::Remove, None) => ActionOutcome::Unchanged,
        (MemberAction::Remove, Some(member)) if member.is_fixed => ActionOutcome::Refused,
        (MemberAction::Remove, Some(_)) => {
            members.remove(&name);
            ActionOutcome::Done
        }
        (MemberAction::PauseFixed, Some(member)) => {
            (member.paused, member.by_link) = (true, true);
            ActionOutcome::Done
        }
        (MemberAction::SetPause(paused), Some(member)) => {
            (member.paused, member.by_link) = (paused, false);
            ActionOutcome::Done
        }
        (MemberAction::PauseFixed | MemberAction::SetPause(_), None) => ActionOutcome::NotThere,
    }
}

impl PbxConnection for ModelConnection {
    const QUERY_PAUSE: Duration = Duration::ZERO;

    async fn start(&mut self) -> Result<Option<PbxStart>, LinkError> {
        self.ask(|state| state.shows_start.then(|| PbxStart(state.starts.to_string().into())))
    }

    async fn queue(&mut self, queue: &str) -> Result<Option<PolledQueue>, LinkError> {
        self.ask(|state| {
            let mut polled = PolledQueue::default();
            for (name, member) in state.queues.get(queue)? {
                match extension_of(name) {
                    Some(extension) => drop(polled.members.insert(extension.into(), seen(member))),
                    None => drop(polled.unparsed.insert(name.as_str().into())),
                }
            }
            Some(polled)
        })
    }

    async fn member(&mut self, key: &MemberKey) -> Result<SoughtMember, LinkError> {
        self.ask(|state| match state.queues.get(&*key.queue) {
            None => SoughtMember::NoQueue,
            Some(members) => members
                .get(&ModelPbx::name_of(&key.extension))
                .map_or(SoughtMember::Absent, |member| SoughtMember::There(seen(member))),
        })
    }

    async fn change(&mut self, key: &MemberKey, action: MemberAction) -> Result<ActionOutcome, LinkError> {
        self.ask(|state| change(state, key, action))
    }

    async fn listeners(&mut self) -> Result<Option<Vec<Listener>>, LinkError> {
        Ok(Some(vec![]))
    }

    async fn hang_up(&mut self, _channel: &str) -> Result<ActionOutcome, LinkError> {
        Ok(ActionOutcome::NotThere)
    }

    async fn hint(&mut self) -> Result<Hint, LinkError> {
        std::future::pending().await
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        self.ask(|_| ())
    }
}
