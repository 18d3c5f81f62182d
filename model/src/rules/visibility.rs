//! Who may see which event of a room (spec: Room History Visibility).

use ruma::events::room::{history_visibility::HistoryVisibility, member::MembershipState};

/// What the room's state was at an event, as far as it decides who may see the event.
#[derive(Debug, Clone)]
pub struct AtEvent {
    /// The history visibility before the event; `shared` where none was set.
    pub visibility: HistoryVisibility,
    /// The visibility that the event itself sets, where it is an `m.room.history_visibility`.
    pub visibility_set: Option<HistoryVisibility>,
    /// The viewer's membership before the event; `leave` where they had none.
    pub membership: MembershipState,
    /// The membership that the event gives the viewer, where it is their own `m.room.member`.
    pub membership_set: Option<MembershipState>,
    /// Whether the viewer is in the room now, or has joined it at any time after the event.
    pub joined_since: bool,
}

/// Whether a viewer may see an event, guest or not. Whether they may look into the room at all is
/// for [`may_read`] to say.
pub fn may_see(at: &AtEvent) -> bool {
    let visibilities = [Some(&at.visibility), at.visibility_set.as_ref()];
    let memberships = [Some(&at.membership), at.membership_set.as_ref()];
    // Of an event that changes what decides, the values before and after it both count.
    visibilities.into_iter().flatten().any(|visibility| {
        memberships
            .into_iter()
            .flatten()
            .any(|membership| allows(visibility, membership, at.joined_since))
    })
}

fn allows(
    visibility: &HistoryVisibility,
    membership: &MembershipState,
    joined_since: bool,
) -> bool {
    match (visibility, membership) {
        (HistoryVisibility::WorldReadable, _) | (_, MembershipState::Join) => true,
        (HistoryVisibility::Invited, MembershipState::Invite) => true,
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
        // `shared`, and whatever is not understood.
        _ => joined_since,
    }
}

/// What a user may read of a room as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// As far as [`may_see`] allows, up to now: a member, or anyone where the world may read.
    UpToNow,
    /// As far as [`may_see`] allows, up to the user's leaving.
    UpToLeaving,
    /// Nothing.
    Nothing,
}

/// How far a user may read a room: `membership` is theirs now, `was_joined` whether they ever were in
/// it, `visibility` the room's now. A room's state follows the same rule.
pub fn may_read(
    membership: &MembershipState,
    was_joined: bool,
    visibility: &HistoryVisibility,
) -> Reach {
    match membership {
        MembershipState::Join => Reach::UpToNow,
        _ if *visibility == HistoryVisibility::WorldReadable => Reach::UpToNow,
        _ if was_joined => Reach::UpToLeaving,
        _ => Reach::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERSHIPS: [&str; 5] = ["join", "invite", "knock", "leave", "ban"];

    fn at(visibility: &str, membership: &str, joined_since: bool) -> AtEvent {
        AtEvent {
            visibility: visibility.into(),
            visibility_set: None,
            membership: membership.into(),
            membership_set: None,
            joined_since,
        }
    }

    #[test]
    fn every_visibility_and_membership_is_decided_as_the_table_says() {
        // Each pair: may see it (having never joined since, having joined since).
        let never = (false, false);
        let later = (false, true);
        let always = (true, true);
        for (visibility, row) in [
            ("world_readable", [always; 5]),
            ("shared", [always, later, later, later, later]),
            ("unheard_of", [always, later, later, later, later]),
            ("invited", [always, always, never, never, never]),
            ("joined", [always, never, never, never, never]),
        ] {
            for (membership, expected) in MEMBERSHIPS.into_iter().zip(row) {
                let seen = (
                    may_see(&at(visibility, membership, false)),
                    may_see(&at(visibility, membership, true)),
                );
                assert_eq!(seen, expected, "{visibility}, {membership}");
            }
        }
    }

    #[test]
    fn a_change_of_visibility_is_seen_by_whoever_sees_either_side_of_it() {
        for (before, after, seen) in [
            ("joined", "world_readable", true),
            ("world_readable", "joined", true),
            ("joined", "invited", false),
            ("joined", "joined", false),
        ] {
            let mut change = at(before, "leave", false);
            change.visibility_set = Some(after.into());
            assert_eq!(may_see(&change), seen, "{before} to {after}");
        }
    }

    #[test]
    fn users_see_their_own_joining_and_leaving() {
        for (before, after, seen) in [
            ("leave", "join", true),
            ("join", "leave", true),
            ("join", "ban", true),
            ("leave", "invite", false),
            ("invite", "leave", false),
        ] {
            let mut change = at("joined", before, false);
            change.membership_set = Some(after.into());
            assert_eq!(may_see(&change), seen, "{before} to {after}");
        }
        let mut invitation = at("invited", "leave", false);
        invitation.membership_set = Some(MembershipState::Invite);
        assert!(may_see(&invitation));
    }

    #[test]
    fn a_room_is_read_by_members_by_those_who_left_and_where_the_world_may() {
        for membership in MEMBERSHIPS {
            for was_joined in [false, true] {
                let reach = |visibility: HistoryVisibility| {
                    may_read(&membership.into(), was_joined, &visibility)
                };
                assert_eq!(reach(HistoryVisibility::WorldReadable), Reach::UpToNow);
                let closed = match (membership, was_joined) {
                    ("join", _) => Reach::UpToNow,
                    (_, true) => Reach::UpToLeaving,
                    (_, false) => Reach::Nothing,
                };
                assert_eq!(reach(HistoryVisibility::Shared), closed, "{membership} {was_joined}");
            }
        }
    }
}
