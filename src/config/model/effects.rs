//! What the actions of a role model do: `does`, `whose`, and the two actions that a toggle becomes.

use crate::config::broken::NameLookup;
use crate::config::model::ModelReader;
use crate::config::reader::{Section, SpannedStr};
use crate::policy::model::{Effect, Subject};
use crate::telephony::SupervisionMode;

/// The keys that name the actions that a toggle becomes.
const TOGGLE_KEYS: &[&str] = &["logged_out", "logged_in", "unpaused", "paused"];

impl<'a> ModelReader<'a> {
    pub(super) fn effect(&mut self, section: &mut Section<'a>) -> Effect {
        section.document_values("whose", ["actor", "target"]);
        let subject = section.string("whose").map(|whose| match whose.value {
            "actor" => Subject::Actor,
            "target" => Subject::Target,
            _ => {
                section.report(&whose.span, "`whose` must be \"actor\" or \"target\"");
                Subject::Actor
            }
        });
        let subject = subject.unwrap_or(Subject::Actor);
        let found_before = section.found();
        let when_off = [section.string("logged_out"), section.string("unpaused")];
        let when_on = [section.string("logged_in"), section.string("paused")];
        let Some(does) = section.string("does") else { return Effect::Nothing };
        let mut becomes = |off, on, effect| {
            self.pending_toggles.push((self.model.actions.len(), off, on));
            effect
        };
        match (does.value, when_off, when_on) {
            ("login", [None, None], [None, None]) => Effect::Login(subject),
            ("logout", [None, None], [None, None]) => Effect::Logout(subject),
            ("pause", [None, None], [None, None]) => Effect::Pause(subject, true),
            ("resume", [None, None], [None, None]) => Effect::Pause(subject, false),
            ("toggle", [Some(logged_out), None], [Some(logged_in), None]) => {
                becomes(logged_out, logged_in, Effect::Toggle { login: 0, logout: 0 })
            }
            ("toggle_pause", [None, Some(unpaused)], [None, Some(paused)]) => {
                becomes(unpaused, paused, Effect::TogglePause { pause: 0, resume: 0 })
            }
            ("watch", [None, None], [None, None]) => Effect::Watch,
            ("toggle" | "toggle_pause", _, _)
                if section.found() > found_before || TOGGLE_KEYS.iter().any(|key| section.has_misspelled(key)) =>
            {
                Effect::Nothing
            }
            (toggle @ ("toggle" | "toggle_pause"), _, _) => {
                let help = match toggle {
                    "toggle" => "logged_out = \"queue.login\", logged_in = \"queue.logout\"",
                    _ => "unpaused = \"queue.pause\", paused = \"queue.resume\"",
                };
                section.report_with_help(&does.span, "a toggle must name the action it becomes in either state", help);
                Effect::Nothing
            }
            (mode, [None, None], [None, None]) if SupervisionMode::named(mode).is_some() => {
                Effect::Supervise(SupervisionMode::named(mode).unwrap_or(SupervisionMode::Listen))
            }
            _ => {
                let help = "login, logout, pause, resume, toggle, toggle_pause, listen, whisper, barge or watch; an \
                            action without `does` changes nothing";
                section.report_with_help(&does.span, format!("an action cannot do `{}`", does.value), help);
                Effect::Nothing
            }
        }
    }

    /// Finds the two actions of each toggle, once every action of the model is read.
    pub(super) fn resolve_toggles(&mut self) {
        for (toggle, off, on) in std::mem::take(&mut self.pending_toggles) {
            let find = |name: &SpannedStr<'_>, does: &str, wanted: Effect| {
                let named = self.action_named(name.value);
                let position = named
                    .found()
                    .filter(|&position| self.model.action(position).is_some_and(|action| action.effect == wanted));
                if position.is_none() && named != NameLookup::Broken {
                    self.report_at(name, format!("`{}` does not {does}, as a toggle needs", name.value));
                }
                position
            };
            let actor = Subject::Actor;
            let effect = self.model.actions.get(toggle).map(|action| action.effect);
            let is_pause = matches!(effect, Some(Effect::TogglePause { .. }));
            let (when_off, when_on) = if is_pause {
                let pause = find(&off, "pause the actor", Effect::Pause(actor, true));
                (pause, find(&on, "resume the actor", Effect::Pause(actor, false)))
            } else {
                let login = find(&off, "log the actor in", Effect::Login(actor));
                (login, find(&on, "log the actor out", Effect::Logout(actor)))
            };
            if let (Some(off), Some(on), Some(action)) = (when_off, when_on, self.model.actions.get_mut(toggle)) {
                action.effect = match action.effect {
                    Effect::TogglePause { .. } => Effect::TogglePause { pause: off, resume: on },
                    _ => Effect::Toggle { login: off, logout: on },
                };
            }
        }
    }
}
