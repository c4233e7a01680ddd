//! The feature codes of one organization: the codes of a preset, and those of `[feature_codes]`, which override them.

use std::ops::Range;

use thiserror::Error;

use crate::config::presets::PRESETS;
use crate::config::reader::{Section, SpannedStr};
use crate::event::Key;
use crate::limits::FEATURE_CODES_PER_ORGANIZATION_MAX;
use crate::policy::feature_codes::{AmbiguityError, Argument, FeatureCode, FeatureCodes, Pattern};
use crate::policy::model::{Action, Model, Subject};

/// Why a pattern cannot mean an action.
#[derive(Clone, Copy, Debug, Error)]
enum MeaningError {
    #[error("the action needs a target: use {{target}}")]
    NeedsTarget,
    #[error("the action is about no queue: leave {{queue}} out")]
    NoQueue,
    #[error("the action has no target: leave {{target}} out")]
    NoTarget,
}

/// Reads feature codes, whose actions are those of the model.
pub(super) struct FeatureCodeReader<'a> {
    pub(super) model: &'a Model,
    /// Whether the organization names a model that loaded. Without one, no action is known, and none is reported.
    pub(super) model_is_known: bool,
    pub(super) root: &'a Section<'a>,
}

impl FeatureCodeReader<'_> {
    /// The codes of the preset and of the table `[feature_codes]`. After a problem the result may be empty.
    pub(super) fn read(&self, preset: Option<&SpannedStr<'_>>, section: Option<&Section<'_>>) -> FeatureCodes {
        let mut codes = preset.map_or(vec![], |preset| self.preset(preset));
        let mut own: Vec<FeatureCode> = vec![];
        for (key, value) in section.into_iter().flat_map(Section::entries) {
            own.extend(self.written_out(&key, value.get_ref().as_str(), &value.span()));
        }
        codes.retain(|code: &FeatureCode| !own.iter().any(|mine| mine.pattern.matches_the_same(&code.pattern)));
        codes.append(&mut own);
        if codes.len() > FEATURE_CODES_PER_ORGANIZATION_MAX {
            let message = format!("there are more than {FEATURE_CODES_PER_ORGANIZATION_MAX} feature codes");
            self.root.report(&self.root.span, message);
            return FeatureCodes::default();
        }
        FeatureCodes::new(codes).unwrap_or_else(|ambiguities| {
            // One code may be ambiguous with many: that is one mistake.
            let mut reported = vec![];
            for ambiguity in &ambiguities {
                self.report_ambiguity(ambiguity, section, &mut reported);
            }
            FeatureCodes::default()
        })
    }

    /// Reports two codes that match the same digits, at the code that the table contains.
    fn report_ambiguity(
        &self,
        ambiguity: &AmbiguityError,
        section: Option<&Section<'_>>,
        reported: &mut Vec<Range<usize>>,
    ) {
        let own = section.into_iter().flat_map(Section::entries).find(|(key, _)| {
            let Ok(pattern) = Pattern::parse(key.value) else { return false };
            let is_short_for = |full: &Pattern| {
                full.arguments().next().is_some_and(|argument| pattern.with_argument(argument) == *full)
            };
            [&ambiguity.first, &ambiguity.second].into_iter().any(|full| pattern == *full || is_short_for(full))
        });
        let whole = section.map_or(&self.root.span, |section| &section.span);
        let span = own.map_or_else(|| whole.clone(), |(key, _)| key.span);
        if reported.contains(&span) {
            return;
        }
        reported.push(span.clone());
        let help = "change one of them, or give it more literal digits";
        self.root.report_with_help(&span, format!("feature codes {ambiguity}"), help);
    }

    fn preset(&self, name: &SpannedStr<'_>) -> Vec<FeatureCode> {
        let Some((_, preset)) = PRESETS.iter().find(|(known, _)| *known == name.value) else {
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            let message = format!("there is no feature-code preset `{}`", name.value);
            self.root.report_with_help(&name.span, message, format!("presets: {}", names.join(", ")));
            return vec![];
        };
        // A preset serves every model. A code for an action that this model lacks is left out.
        let codes = preset.iter().filter_map(|(pattern, action)| {
            let action = *self.model.action_positions.get(action.as_bytes())?;
            Some(FeatureCode { pattern: Pattern::parse(pattern).ok()?, action })
        });
        codes.collect()
    }

    /// The codes that one line of `[feature_codes]` is short for.
    fn written_out(&self, key: &SpannedStr<'_>, action: Option<&str>, action_span: &Range<usize>) -> Vec<FeatureCode> {
        let pattern = match Pattern::parse(key.value) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.root.report(&key.span, format!("`{}`: {error}", key.value));
                return vec![];
            }
        };
        let Some(name) = action else {
            self.root.report(action_span, format!("`{}` must name an action, like \"queue.login\"", key.value));
            return vec![];
        };
        let Some(&position) = self.model.action_positions.get(name.as_bytes()) else {
            if self.model_is_known {
                self.root.report(action_span, format!("the model `{}` has no action `{name}`", self.model.name));
            }
            return vec![];
        };
        let Some(action) = self.model.action(position) else { return vec![] };
        match patterns_for(&pattern, action) {
            Ok(patterns) => patterns.into_iter().map(|pattern| FeatureCode { pattern, action: position }).collect(),
            Err(error) => {
                let message = format!("`{}` cannot mean `{name}`", key.value);
                self.root.report_with_help(&key.span, message, error.to_string());
                vec![]
            }
        }
    }
}

/// The patterns that a pattern without an argument is short for; a pattern with an argument is only itself.
fn patterns_for(pattern: &Pattern, action: &Action) -> Result<Vec<Pattern>, MeaningError> {
    let needs_target = action.needs.has(Key::Target);
    let is_short = pattern.arguments().next().is_none();
    // A target that the action does not use must be the actor: only a key for one's own login sessions has it.
    let takes_target = action.uses.has(Key::Target) || action.effect.subject() == Some(Subject::Actor);
    if is_short && needs_target {
        Ok(vec![pattern.with_argument(Argument::Target)])
    } else if is_short && action.uses.has(Key::Queue) {
        Ok(vec![pattern.clone(), pattern.with_argument(Argument::Queue)])
    } else if !is_short && needs_target && !pattern.has(Argument::Target) {
        Err(MeaningError::NeedsTarget)
    } else if pattern.has(Argument::Queue) && !action.uses.has(Key::Queue) {
        Err(MeaningError::NoQueue)
    } else if pattern.has(Argument::Target) && !takes_target {
        Err(MeaningError::NoTarget)
    } else {
        Ok(vec![pattern.clone()])
    }
}
