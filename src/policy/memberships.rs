//! The groups of every user, for organizations in which every user is in some group.
//!
//! The groups of all users are in one array, ordered by user; a second array holds where each user's groups start. A
//! question about one user reads two places, however many users there are; a binary search over pairs would read one
//! place for every doubling of their number, each a cache miss. Memory: four bytes a user and two bytes a membership.

use crate::telephony::{GroupId, UserId};

/// The groups of every user; empty for an organization without groups.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// For each user id, the position in `groups` of the user's first group. One further position: the end of `groups`.
    starts: Vec<u32>,
    /// The groups of each user, sorted, one user after another.
    groups: Vec<GroupId>,
}

impl Memberships {
    /// Builds the arrays from memberships in any order.
    pub(super) fn of(mut pairs: Vec<(UserId, GroupId)>) -> Self {
        pairs.sort_unstable();
        let users = pairs.last().map_or(0, |(user, _)| user.0 as usize + 1);
        let mut starts = Vec::with_capacity(users + 1);
        for (position, (user, _)) in (0_u32..).zip(&pairs) {
            // The users between this one and the one before have no group: theirs start here too.
            starts.resize((user.0 as usize + 1).max(starts.len()), position);
        }
        // At most 8,000,000 users in 65,535 groups: a configuration file with 2^32 memberships does not load.
        starts.push(u32::try_from(pairs.len()).unwrap_or(u32::MAX));
        Self { starts, groups: pairs.into_iter().map(|(_, group)| group).collect() }
    }

    /// The groups that the user is in, sorted by id.
    pub(super) fn of_user(&self, user: UserId) -> &[GroupId] {
        let position = user.0 as usize;
        let (Some(&start), Some(&end)) = (self.starts.get(position), self.starts.get(position + 1)) else {
            return &[];
        };
        // INVARIANT: `of` has built both arrays; a range outside `groups` would be no group.
        self.groups.get(start as usize..end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_given_groups_and_no_others() {
        let pairs = [(4, 2), (1, 7), (4, 0), (1, 3), (0, 7)].map(|(user, group)| (UserId(user), GroupId(group)));
        let memberships = Memberships::of(pairs.to_vec());
        let of = |user| memberships.of_user(UserId(user)).iter().map(|group| group.0).collect::<Vec<_>>();
        assert_eq!(
            [0, 1, 2, 3, 4, 5, u32::MAX].map(of),
            [vec![7], vec![3, 7], vec![], vec![], vec![0, 2], vec![], vec![]]
        );
        assert!(Memberships::default().of_user(UserId(0)).is_empty());
        assert!(Memberships::of(vec![]).of_user(UserId(0)).is_empty());
    }
}
