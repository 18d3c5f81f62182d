//! Adding members to the current state of a partial room in small steps, so that no commit is large.

use millrace_store::{
    rows::partial::Completion,
    state_tree::{Change, Difference, StateRoot},
};
use ruma::UserId;

use crate::rooms::{AppendError, RoomTx};

const MEMBER: &str = "m.room.member";

impl RoomTx<'_> {
    /// Adds some of what the complete state has and the current one lacks, to it and to the states
    /// after all ends, `entries` of them. False where fewer are lacking, or nothing can be added so.
    pub(super) async fn grow(
        &mut self,
        completion: &Completion,
        entries: usize,
    ) -> Result<bool, AppendError> {
        let complete = completion.root.unwrap_or(self.head.root);
        let states = &self.rooms.states;
        let mut lacking = states.diff(self.tx, &self.room_id, self.head.root, complete).await?;
        lacking.retain(|change| change.old.is_none() && !self.is_ours(change));
        if lacking.len() < entries {
            return Ok(false);
        }
        lacking.truncate(entries);
        let old = self.head.root;
        let mut grown: Vec<(StateRoot, StateRoot)> = Vec::new();
        for at in 0..self.head.extremities.len() {
            let after = self.head.extremities[at].after;
            let known = grown.iter().find(|(old, _)| *old == after).map(|(_, new)| *new);
            let new = match known {
                Some(new) => new,
                None => self.with(after, &lacking).await?,
            };
            grown.push((after, new));
            self.head.extremities[at].after = new;
        }
        let root = self.resolved(&Vec::from_iter(self.roots())).await?;
        self.set_root(root).await?;
        Ok(root != old)
    }

    /// What users of ours see of it is not to be seen before the rest is right.
    fn is_ours(&self, change: &Difference) -> bool {
        let user = UserId::parse(&*change.key.state_key);
        change.key.event_type == MEMBER && user.is_ok_and(|user| self.rooms.env.is_local(&user))
    }

    /// A state with the entries added that it has nothing for.
    async fn with(
        &self,
        root: StateRoot,
        lacking: &[Difference],
    ) -> Result<StateRoot, AppendError> {
        let (states, room) = (&self.rooms.states, &self.room_id);
        let places: Vec<_> = lacking
            .iter()
            .map(|change| (change.key.event_type.as_str(), change.key.state_key.as_str()))
            .collect();
        let held = states.get_many(self.tx, room, root, &places).await?;
        let changes: Vec<Change<'_>> = lacking
            .iter()
            .zip(held)
            .filter(|(_, held)| held.is_none())
            .map(|(change, _)| Change {
                event_type: &change.key.event_type,
                state_key: &change.key.state_key,
                event: change.new,
            })
            .collect();
        Ok(states.change(self.tx, room, root, &changes).await?)
    }
}
