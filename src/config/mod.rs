//! The configuration: one struct a section, read from a TOML file and `JUMAR_<SECTION>__<KEY>` variables.
//!
//! Owns defaults, reading and checking. A [`Config`] that was loaded is sound as far as can be told without touching the
//! disk or the network; whatever is wrong is told in one line that names where it stands, the key and the remedy.

mod auth;
mod check;
mod network;
mod rates;
mod read;
mod secret;
mod sections;
mod spaces;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use auth::{Auth, AuthMode, Join, Jwt};
pub use network::{FileMode, Tls, TrustedProxy};
pub use rates::RateLimits;
pub use read::ConfigError;
pub use secret::Secret;
pub use sections::{
    Api, Catalog, Checksum, Direct, Fs, Log, LogFormat, Objects, Prune, S3, Server, Spool, Sse,
    Store, StoreKind, Tail, Uploads,
};
pub use spaces::{Limit, Quotas, Space};

/// Everything that can be told to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listeners.
    pub server: Server,
    /// TLS on the main listener.
    pub tls: Tls,
    /// Where each protocol is found.
    pub api: Api,
    /// Who has to say who they are, and how.
    pub auth: Auth,
    /// The record of uploads.
    pub catalog: Catalog,
    /// Where the bytes go.
    pub store: Store,
    /// Bytes that wait on this node's disk.
    pub spool: Spool,
    /// Limits and times of uploads.
    pub uploads: Uploads,
    /// URLs that clients put parts to.
    pub direct: Direct,
    /// Files in one request, and what is served.
    pub objects: Objects,
    /// What uploads are held to, space by space. That of `default` holds also where it is not written.
    pub spaces: BTreeMap<String, Space>,
    /// How quotas are counted.
    pub quotas: Quotas,
    /// How fast requests may come.
    pub rate_limits: RateLimits,
    /// Cleaning up.
    pub prune: Prune,
    /// The log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            tls: Tls::default(),
            api: Api::default(),
            auth: Auth::default(),
            catalog: Catalog::default(),
            store: Store::default(),
            spool: Spool::default(),
            uploads: Uploads::default(),
            direct: Direct::default(),
            objects: Objects::default(),
            spaces: [(DEFAULT_SPACE.to_owned(), Space::default())].into(),
            quotas: Quotas::default(),
            rate_limits: RateLimits::default(),
            prune: Prune::default(),
            log: Log::default(),
        }
    }
}

/// The space of whoever has no other.
const DEFAULT_SPACE: &str = "default";
/// The file that is read if none is named and it is there.
const USUAL_FILE: &str = "config.toml";

impl Config {
    /// Reads the file, or `config.toml` of the working folder if that is there, and the process's environment; then checks.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let usual = Path::new(USUAL_FILE);
        let file = file.or_else(|| usual.exists().then_some(usual));
        // A variable that is no Unicode cannot be one of ours, whose names are ASCII; its value is read lossily to say so.
        let variables = std::env::vars_os().map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        });
        Self::read(file, variables)
    }

    /// Reads a file and the given environment; then checks.
    pub fn read(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let config = read::read(file, variables)?;
        check::check(&config).map_err(|(key, remedy)| ConfigError {
            place: read::place_of(file, key),
            key: key.to_owned(),
            remedy,
        })?;
        Ok(config)
    }

    /// Refuses listeners that others can reach if nobody has to prove who they are.
    pub fn check_exposure(&self, insecure: bool) -> Result<(), ConfigError> {
        let exposed = [
            ("server.listen", self.server.listen),
            ("server.admin_listen", self.server.admin_listen),
        ]
        .into_iter()
        .find(|(_, address)| !address.ip().is_loopback());
        let open = self.auth.mode == AuthMode::Open;
        match exposed {
            Some((key, address)) if open && !insecure => Err(ConfigError {
                place: "configuration".to_owned(),
                key: key.to_owned(),
                remedy: format!(
                    "{address} can be reached by others and nobody has to prove who they are; listen on 127.0.0.1, set auth.mode = \"required\", or say --insecure if something in front takes care of that"
                ),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
