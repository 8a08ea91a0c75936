//! `[tls]`, and what keys of `[server]` are made of.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[tls]`: TLS on `server.listen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate and its chain, in PEM; empty: no TLS.
    pub cert_file: PathBuf,
    /// The certificate's private key, in PEM.
    pub key_file: PathBuf,
    /// The authorities of the clients that are let in, in PEM; empty: clients need no certificate.
    pub client_ca_file: PathBuf,
    /// How often the files are looked at.
    pub reload_secs: u64,
    /// How long a handshake may take.
    pub handshake_timeout_secs: u64,
}

impl Tls {
    /// Whether there is TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
            reload_secs: 10,
            handshake_timeout_secs: 10,
        }
    }
}

/// The permissions of a file, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octal = text.len() == 3 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        octal
            .then(|| u32::from_str_radix(text, 8).ok())
            .flatten()
            .map(Self)
            .ok_or("has to be three octal digits, as in \"660\"")
    }
}

impl TryFrom<String> for FileMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(FileMode(mode): FileMode) -> Self {
        format!("{mode:03o}")
    }
}

/// A proxy whose word is taken for whom it speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrustedProxy {
    /// Whoever comes over the Unix socket.
    Unix,
    /// One address, or all of a network.
    Network(IpNet),
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self::Network)
            .map_err(|_| {
                format!(
                    "{text:?} has to be an address, a network as in \"10.0.0.0/8\", or \"unix\""
                )
            })
    }
}

impl TryFrom<String> for TrustedProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TrustedProxy> for String {
    fn from(proxy: TrustedProxy) -> Self {
        proxy.to_string()
    }
}
