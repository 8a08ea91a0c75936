//! API keys and revoked ids in memory, followed as the catalog changes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::catalog::{ApiKeyRecord, CatalogError, TokenLists, Tokens};
use crate::model::{KeyHash, TokenId};

/// What tokens are held against, as of the last look into the catalog.
pub(super) struct Lists {
    catalog: Arc<dyn Tokens>,
    current: RwLock<Arc<Loaded>>,
}

struct Loaded {
    version: u64,
    keys: HashMap<Prefix, Vec<ApiKeyRecord>>,
    revoked: HashSet<TokenId>,
}

/// What a key is looked up by: the beginning of its hash. How long that takes tells nothing, as nobody can choose a hash; the
/// whole is compared in constant time.
type Prefix = [u8; 8];

fn prefix(hash: &KeyHash) -> Prefix {
    *hash.0.first_chunk().expect("a hash has 32 bytes")
}

impl Loaded {
    fn new(lists: TokenLists) -> Self {
        let mut keys: HashMap<Prefix, Vec<ApiKeyRecord>> = HashMap::new();
        for key in lists.api_keys {
            keys.entry(prefix(&key.hash)).or_default().push(key);
        }
        Self {
            version: lists.version,
            keys,
            revoked: lists.revoked.into_iter().collect(),
        }
    }
}

impl Lists {
    pub(super) async fn load(catalog: Arc<dyn Tokens>) -> Result<Self, CatalogError> {
        let lists = catalog.tokens(None).await?;
        let lists = lists.expect("everything is news to whoever knows nothing");
        Ok(Self {
            catalog,
            current: RwLock::new(Arc::new(Loaded::new(lists))),
        })
    }

    /// Looks for changes again and again. If the catalog cannot be read, what is known goes on.
    pub(super) async fn follow(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "tokens cannot be read from the catalog now; those that are known go on");
                }
                Err(_) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), CatalogError> {
        let known = self.current().version;
        if let Some(lists) = self.catalog.tokens(Some(known)).await? {
            let loaded = Arc::new(Loaded::new(lists));
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        }
        Ok(())
    }

    pub(super) fn api_key(&self, hash: &KeyHash) -> Option<ApiKeyRecord> {
        let current = self.current();
        let same = current.keys.get(&prefix(hash))?;
        same.iter().find(|key| key.hash == *hash).cloned()
    }

    pub(super) fn is_revoked(&self, id: &TokenId) -> bool {
        self.current().revoked.contains(id)
    }

    fn current(&self) -> Arc<Loaded> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}
