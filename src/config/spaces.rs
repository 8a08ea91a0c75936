//! `[spaces.NAME]` and `[quotas]`: what uploads are held to, space by space.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::Readers;
use crate::model::{LimitName, Limits};

/// A limit: a number, or `"none"`. 0 lets nothing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit(pub Option<u64>);

impl Limit {
    /// A limit of so many.
    #[must_use]
    pub const fn of(value: u64) -> Self {
        Self(Some(value))
    }
}

/// How the want of a limit is written.
pub(super) const NONE: &str = "none";

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(value) => serializer.serialize_u64(value),
            None => serializer.serialize_str(NONE),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LimitVisitor;

        impl Visitor<'_> for LimitVisitor {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, 0 or more, or \"none\"")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Limit, E> {
                Ok(Limit::of(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Limit, E> {
                u64::try_from(value)
                    .map(Limit::of)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            /// A variable of the environment is text, also where it is a number.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                if text == NONE {
                    return Ok(Limit(None));
                }
                text.parse()
                    .map(Limit::of)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(LimitVisitor)
    }
}

/// `[spaces.NAME]`: what uploads of a space are held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Space {
    /// The largest upload; `uploads.max_size_bytes` holds, too.
    pub max_size_bytes: Limit,
    /// What may be uploaded, as in `image/*`; none named: everything.
    pub content_types: Vec<String>,
    /// How an object's key is made; empty: as `store.key` says.
    pub key: String,
    /// How long records of ended uploads stay; none: `uploads.retention_secs`.
    pub retention_secs: Limit,
    /// Whose pages may use the space; none named: those of `server.cors_origins`.
    pub cors_origins: Vec<String>,
    /// Who may read content beside those with an upload's key or the scope `read`.
    pub read: Readers,
    /// How many uploads of a device may be open at once.
    pub open_per_device: Limit,
    /// How many uploads of a token may be open at once.
    pub open_per_token: Limit,
    /// How many uploads a device may create in a day.
    pub uploads_per_day_per_device: Limit,
    /// How many bytes they may have.
    pub bytes_per_day_per_device: Limit,
    /// How many uploads a subject may create in a day.
    pub uploads_per_day_per_subject: Limit,
    /// How many bytes they may have.
    pub bytes_per_day_per_subject: Limit,
    /// How many uploads may be there in all.
    pub uploads: Limit,
    /// How many bytes may be stored in all.
    pub stored_bytes: Limit,
}

impl Default for Space {
    fn default() -> Self {
        let none = Limit(None);
        Self {
            max_size_bytes: none,
            content_types: Vec::new(),
            key: String::new(),
            retention_secs: none,
            cors_origins: Vec::new(),
            read: Readers::Owner,
            open_per_device: Limit::of(2),
            open_per_token: Limit::of(256),
            uploads_per_day_per_device: none,
            bytes_per_day_per_device: none,
            uploads_per_day_per_subject: none,
            bytes_per_day_per_subject: none,
            uploads: none,
            stored_bytes: none,
        }
    }
}

impl Space {
    /// The limits that are set.
    #[must_use]
    pub fn limits(&self) -> Limits {
        [
            (LimitName::OpenPerDevice, self.open_per_device),
            (LimitName::OpenPerToken, self.open_per_token),
            (
                LimitName::UploadsPerDayPerDevice,
                self.uploads_per_day_per_device,
            ),
            (
                LimitName::BytesPerDayPerDevice,
                self.bytes_per_day_per_device,
            ),
            (
                LimitName::UploadsPerDayPerSubject,
                self.uploads_per_day_per_subject,
            ),
            (
                LimitName::BytesPerDayPerSubject,
                self.bytes_per_day_per_subject,
            ),
            (LimitName::Uploads, self.uploads),
            (LimitName::StoredBytes, self.stored_bytes),
        ]
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit.0?)))
        .collect()
    }
}

/// `[quotas]`: how quotas are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// An upload that got no byte for so long does not count as open.
    pub open_idle_secs: u64,
    /// How long a creation waits for a place where as many uploads are open as may be.
    pub open_wait_secs: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            open_idle_secs: 600,
            open_wait_secs: 30,
        }
    }
}
