//! Mappings of scopes that ended on nodes that are dead.

use super::{Cluster, Owner, counters};
use crate::fault::Fault;
use crate::scope::ScopeKey;

impl Cluster {
    /// Gives back a scope that ended under `fence`, unless its node is there and does that itself.
    /// True when it did.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn release_for(
        &self,
        scope: &ScopeKey,
        owner: &Owner,
        fence: u64,
    ) -> Result<bool, Fault> {
        let nodes = self.registry.nodes().await?;
        if let Some(listed) = nodes.iter().find(|listed| listed.node.owner() == *owner)
            && (listed.is_alive || self.is_well(&listed.node).await)
        {
            return Ok(false);
        }
        self.mappings.release(scope, fence).await?;
        counters::count(&self.counters.released_for_others);
        Ok(true)
    }

    /// Forgets where a scope is that nobody may enter any more, and gives it back where clients were sent
    /// and nobody came. One that is held ends with those who are in it.
    pub async fn give_up(&self, scope: &ScopeKey) {
        // Whoever makes names up costs the mappings nothing.
        if self.places().remove(scope).is_none() {
            return;
        }
        if let Err(fault) = self.mappings.forget(scope).await {
            tracing::debug!(scope = scope.scope, "given back later: {fault}");
        }
    }

    /// Under which fence this node holds a scope, if it does.
    pub fn fence_of(&self, scope: &ScopeKey) -> Option<u64> {
        self.claims.fence_of(scope)
    }
}
