//! A role model as a matrix for people: one row per action, one column per role, the scope in each cell.
//!
//! `queuewarden models` prints it.

use serde::Serialize;

use crate::policy::facts::Fact;
use crate::policy::model::{Action, Grant, Model, RoleSet};

/// The column of grants that need no role.
const EVERYONE: &str = "everyone";

/// The word in a cell for each fact that narrows a scope.
const SCOPE_WORDS: &[(Fact, &str)] = &[
    (Fact::RoleLower, "lower"),
    (Fact::TargetInSupervisedQueue, "in supervised queues"),
    (Fact::SessionOpen, "logged in"),
    (Fact::QueueServed, "served"),
    (Fact::QueueSupervised, "supervised"),
    (Fact::TargetSelf, "own"),
    (Fact::TargetLed, "led"),
    (Fact::TargetManaged, "managed"),
    (Fact::TargetLower, "lower"),
    (Fact::TargetInOwnGroup, "own groups"),
    (Fact::TargetInServedCallbackQueue, "callback queues"),
    (Fact::GroupLed, "led groups"),
    (Fact::GroupOwn, "own groups"),
    (Fact::QueueEdited, "edited"),
];

/// A role model as a matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// The name of the model.
    pub model: String,
    /// The columns: `everyone`, then the roles in the order of the model.
    pub roles: Vec<String>,
    /// The rows: the actions in the order of the model, without toggles. A toggle is judged as login or logout.
    pub rows: Vec<MatrixRow>,
}

/// The scopes of every role for one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatrixRow {
    /// The name of the action.
    pub action: String,
    /// The rules that the action cites.
    pub rules: Vec<String>,
    /// One scope per column. Empty: no grant. A scope with `?` depends on a setting or on values in the event.
    pub cells: Vec<String>,
}

impl Matrix {
    /// The matrix of a model.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let columns: Vec<(String, Option<RoleSet>)> = std::iter::once((EVERYONE.to_owned(), None))
            .chain(
                model
                    .roles
                    .iter()
                    .enumerate()
                    .map(|(position, role)| (role.name.to_string(), Some(RoleSet::default().with(position)))),
            )
            .collect();
        let row = |action: &Action| MatrixRow {
            action: action.name.to_string(),
            rules: action.rules.iter().map(ToString::to_string).collect(),
            cells: columns.iter().map(|(_, role)| cell(model, action, *role)).collect(),
        };
        Self {
            model: model.name.to_string(),
            rows: model.actions.iter().filter(|action| !action.effect.is_toggle()).map(row).collect(),
            roles: columns.into_iter().map(|(name, _)| name).collect(),
        }
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heading = std::iter::once(self.model.as_str()).chain(self.roles.iter().map(String::as_str)).collect();
        let rows = self.rows.iter().map(|row| {
            let cells = row.cells.iter().map(|cell| if cell.is_empty() { "·" } else { cell.as_str() });
            std::iter::once(row.action.as_str()).chain(cells).collect()
        });
        let lines: Vec<Vec<&str>> = std::iter::once(heading).chain(rows).collect();
        let columns = self.roles.len() + 1;
        let width_of = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for line in &lines {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            writeln!(formatter, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The scopes of one column for one action. `role` is a set of one role, or `None` for the column of everyone.
fn cell(model: &Model, action: &Action, role: Option<RoleSet>) -> String {
    let is_of_role = |grant: &&Grant| match (grant.roles, role) {
        (None, None) => true,
        (Some(roles), Some(role)) => roles.meets(role),
        _ => false,
    };
    let grants = model.grants_of(action).map(|(_, grant)| grant).filter(is_of_role);
    let mut scopes: Vec<String> = vec![];
    for grant in grants {
        let scope = scope(grant);
        let certain = scope.trim_end_matches('?').to_owned();
        if !scopes.contains(&scope) && !scopes.contains(&certain) {
            scopes.retain(|known| known.trim_end_matches('?') != certain);
            scopes.push(scope);
        }
    }
    scopes.join(", ")
}

/// The scope of one grant in words.
fn scope(grant: &Grant) -> String {
    let word = |fact: Fact| SCOPE_WORDS.iter().find(|(narrowing, _)| *narrowing == fact).map(|(_, word)| *word);
    let all = grant.facts.iter().filter_map(word).map(str::to_owned);
    let any_of = grant.any_of.iter().map(|clause| clause.iter().filter_map(word).collect::<Vec<_>>().join("/"));
    let mut words: Vec<String> = all.chain(any_of).filter(|word| !word.is_empty()).collect();
    words.dedup();
    let scope = if words.is_empty() { "any".to_owned() } else { words.join(" + ") };
    let narrowing = [
        Fact::RoleAtQueue,
        Fact::ActorOutboundByGroup,
        Fact::ActorOutboundUnset,
        Fact::QueueWrapUp,
        Fact::ObjectFree,
        Fact::TargetHoldsRole,
    ];
    let conditional = !grant.on.is_empty()
        || !grant.off.is_empty()
        || !grant.attributes_barred.is_empty()
        || narrowing.iter().any(|&fact| grant.facts.contains(fact));
    if conditional { format!("{scope}?") } else { scope }
}
