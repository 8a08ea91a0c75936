//! A server that wants tokens, and those who come with one.

use std::time::Duration;

use jumar::catalog::sqlite::{SqliteCatalog, Synchronous};
use jumar::catalog::{ApiKeyRecord, Tokens as _};
use jumar::config::{AuthMode, Config, Limit};
use jumar::engine::Filter;
use jumar::model::{ApiKey, Scope, TokenId};
use serde_json::{Value, json};

use super::http::Answer;
use super::server::Server;
use super::tokens::{join_token, take_join_tokens};

/// Tokens are wanted, and no limit is met by chance.
pub(crate) fn closed(config: &mut Config) {
    config.auth.mode = AuthMode::Required;
    open(config);
}

/// Tokens are taken, and none is needed.
pub(crate) fn open(config: &mut Config) {
    take_join_tokens(config);
    config.auth.refresh_ms = 10;
    config.rate_limits.failures_per_minute = Limit(None);
    for space in config.spaces.values_mut() {
        space.open_per_device = Limit(None);
    }
}

impl Server {
    /// What somebody with such a join token sends.
    pub(crate) fn bearer(&self, claims: &Value) -> String {
        format!("Bearer {}", join_token(self.clock.now(), claims))
    }

    /// A subject with a token that allows uploads.
    pub(crate) fn guest(&self, subject: &str) -> String {
        self.bearer(&json!({"sub": subject, "jti": format!("of-{subject}")}))
    }

    fn outsider(&self) -> SqliteCatalog {
        let path = self.ground.folder.path().join("jumar.db");
        SqliteCatalog::open(&path, Synchronous::Normal).expect("opened")
    }

    /// What somebody with an API key sends, once the server knows the key.
    pub(crate) async fn api_key(&self, scope: Scope, space: Option<&str>) -> String {
        let key = ApiKey::generate();
        let record = ApiKeyRecord {
            id: TokenId::generate(),
            hash: key.hash(),
            name: "of a test".to_owned(),
            scope,
            space: space.map(|space| space.parse().expect("a name")),
            created_at: self.clock.now(),
            expires_at: None,
            revoked_at: None,
        };
        let added = self.outsider().add_api_key(record).await;
        added.expect("added");
        let bearer = format!("Bearer {}", key.reveal());
        self.until_known(&bearer, 200).await;
        bearer
    }

    /// Revokes a signed token by its id, and waits until the server knows.
    pub(crate) async fn revoke(&self, id: &str, bearer: &str) {
        let id = id.parse().expect("an id");
        let catalog = self.outsider();
        let revoked = catalog.revoke_token(id, self.clock.now(), None);
        revoked.await.expect("revoked");
        self.until_known(bearer, 401).await;
    }

    async fn until_known(&self, bearer: &str, status: u16) {
        for _ in 0..1000 {
            let asked = self.with_token(bearer, "GET", "/v1/quota", &[], b"").await;
            if asked.status == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {status}");
    }

    pub(crate) async fn with_token(
        &self,
        bearer: &str,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let fields = [&[("Authorization", bearer)], fields].concat();
        self.call(method, path, &fields, body).await
    }

    /// All that the catalog knows of all uploads.
    pub(crate) async fn everything(&self) -> Vec<String> {
        let engine = self.running.engine();
        let mut all = Vec::new();
        for upload in engine.list(Filter::default(), 1000).await.expect("listed") {
            all.push(format!("{:?}", engine.inspect(upload.id).await));
        }
        all
    }
}
