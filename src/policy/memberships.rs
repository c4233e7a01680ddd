//! Who is in which groups, for organizations in which everybody is in some.
//!
//! Every user's groups stand together, and an array says where they begin: a question about one user looks in two
//! places, however many users there are. A list of pairs that is searched by halves would look in one place for every
//! doubling of them, each a wait for memory. It takes four bytes a user and two a membership.

use crate::telephony::{GroupId, UserId};

/// The groups of every user.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// Where the groups of the user of this number begin, and one more: where those of the last end.
    starts: Vec<u32>,
    /// Each user's groups, sorted.
    groups: Vec<GroupId>,
}

impl Memberships {
    /// Takes up memberships in any order.
    pub(super) fn of(mut pairs: Vec<(UserId, GroupId)>) -> Self {
        pairs.sort_unstable();
        let users = pairs.last().map_or(0, |(user, _)| (user.0 as usize).saturating_add(1));
        let mut starts = Vec::with_capacity(users.saturating_add(1));
        for (position, (user, _)) in (0_u32..).zip(&pairs) {
            // Also where those begin who have none, between this user and the one before.
            starts.resize((user.0 as usize).saturating_add(1).max(starts.len()), position);
        }
        starts.push(u32::try_from(pairs.len()).unwrap_or(u32::MAX));
        Self { starts, groups: pairs.into_iter().map(|(_, group)| group).collect() }
    }

    /// The groups that the user is in, sorted by id.
    pub(super) fn of_user(&self, user: UserId) -> &[GroupId] {
        let position = user.0 as usize;
        let (Some(&start), Some(&end)) = (self.starts.get(position), self.starts.get(position.saturating_add(1)))
        else {
            return &[];
        };
        self.groups.get(start as usize..end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_the_groups_that_were_given_and_no_others() {
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
