//! Tokens, good and bad, and where an application's keys are found.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use jumar::config::{Config, Secret};
use jumar::model::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What join tokens are signed with.
pub(crate) const SECRET: &str = "a secret of the tests with more than 32 bytes";

/// The issuer of an application's tokens.
pub(crate) const ISSUER: &str = "https://id.example";

/// The keys in `keys/`; they open nothing but what the tests make.
macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("keys/", $name))
    };
}
pub(crate) const ED25519_PUBLIC: &str = key!("ed25519.pub.pem");

/// Something to sign with.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
    /// `kid`
    pub(crate) id: Option<String>,
}

impl Signer {
    fn new(algorithm: Algorithm, key: jsonwebtoken::errors::Result<EncodingKey>) -> Self {
        Self {
            algorithm,
            key: key.expect("a key"),
            id: None,
        }
    }

    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self::new(Algorithm::HS256, Ok(EncodingKey::from_secret(secret)))
    }

    pub(crate) fn ed25519() -> Self {
        let pem = key!("ed25519.pem").as_bytes();
        Self::new(Algorithm::EdDSA, EncodingKey::from_ed_pem(pem))
    }

    pub(crate) fn other_ed25519() -> Self {
        let pem = key!("other.pem").as_bytes();
        Self::new(Algorithm::EdDSA, EncodingKey::from_ed_pem(pem))
    }

    pub(crate) fn rsa(algorithm: Algorithm) -> Self {
        let pem = key!("rsa.pem").as_bytes();
        Self::new(algorithm, EncodingKey::from_rsa_pem(pem))
    }

    pub(crate) fn p256() -> Self {
        let pem = key!("p256.pem").as_bytes();
        Self::new(Algorithm::ES256, EncodingKey::from_ec_pem(pem))
    }

    pub(crate) fn p384() -> Self {
        let pem = key!("p384.pem").as_bytes();
        Self::new(Algorithm::ES384, EncodingKey::from_ec_pem(pem))
    }

    /// Under a name.
    pub(crate) fn named(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        jsonwebtoken::encode(&header, claims, &self.key).expect("signed")
    }

    /// The public half, as it stands in a set of keys.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public half");
        jwk.common.key_id.clone_from(&self.id);
        serde_json::to_value(jwk).expect("JSON")
    }
}

/// Takes join tokens that are signed with [`SECRET`].
pub(crate) fn take_join_tokens(config: &mut Config) {
    config.auth.join.secret = Secret::from(SECRET);
}

/// Seconds of Unix time.
pub(crate) fn secs(at: Timestamp) -> i64 {
    at.0.div_euclid(1000)
}

/// The claims of a join token that is good for an hour.
pub(crate) fn join_claims(now: Timestamp) -> Value {
    json!({
        "iss": "jumar",
        "aud": "jumar",
        "jti": "party-1",
        "space": "default",
        "iat": secs(now),
        "exp": secs(now) + 3600,
    })
}

/// A join token with some claims changed; `null` takes one away.
pub(crate) fn join_token(now: Timestamp, changed: &Value) -> String {
    Signer::secret(SECRET.as_bytes()).sign(&with(join_claims(now), changed))
}

/// The claims of an application's token that is good for an hour.
pub(crate) fn jwt_claims(now: Timestamp) -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["other", "jumar"],
        "sub": "alice",
        "exp": secs(now) + 3600,
    })
}

pub(crate) fn with(mut claims: Value, changed: &Value) -> Value {
    let changed = changed.as_object().expect("claims").clone();
    claims.as_object_mut().expect("claims").extend(changed);
    claims
}

/// A set of keys.
pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Where an application's keys are found; for a while it can be away.
pub(crate) struct KeysServer {
    pub(crate) url: String,
    keys: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl KeysServer {
    /// `None`: connections are closed without an answer.
    pub(crate) async fn start(keys: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
        let keys = Arc::new(Mutex::new(keys));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answer, counted) = (Arc::clone(&keys), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accepted");
                counted.fetch_add(1, Ordering::SeqCst);
                let keys = answer.lock().unwrap().clone();
                // A client that goes is no failure of the server.
                drop(serve(socket, keys).await);
            }
        });
        Self {
            url,
            keys,
            asked,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn set(&self, keys: Option<String>) {
        *self.keys.lock().unwrap() = keys;
    }

    /// How often somebody has asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut socket: TcpStream, keys: Option<String>) -> io::Result<()> {
    let mut head = [0; 4096];
    let _ = socket.read(&mut head).await?;
    if let Some(keys) = keys {
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            keys.len()
        );
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(keys.as_bytes()).await?;
    }
    Ok(())
}
