//! How much may be used up, and by whom it is counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::caller::{Caller, DeviceId, SpaceName, Subject, TokenId};
use super::time::Timestamp;

/// A limit, by the name that it has in the configuration and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Uploads of a device that take bytes and got some lately.
    OpenPerDevice,
    /// The same of a token.
    OpenPerToken,
    /// Uploads that a device creates in a day.
    UploadsPerDayPerDevice,
    /// Bytes of them.
    BytesPerDayPerDevice,
    /// Uploads that a subject creates in a day.
    UploadsPerDayPerSubject,
    /// Bytes of them.
    BytesPerDayPerSubject,
    /// Uploads of a token, in all.
    UploadsPerToken,
    /// Bytes of them.
    BytesPerToken,
    /// Uploads in a space, in all.
    Uploads,
    /// Bytes of them, as long as they are stored.
    StoredBytes,
}

impl LimitName {
    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenPerDevice => "open_per_device",
            Self::OpenPerToken => "open_per_token",
            Self::UploadsPerDayPerDevice => "uploads_per_day_per_device",
            Self::BytesPerDayPerDevice => "bytes_per_day_per_device",
            Self::UploadsPerDayPerSubject => "uploads_per_day_per_subject",
            Self::BytesPerDayPerSubject => "bytes_per_day_per_subject",
            Self::UploadsPerToken => "uploads_per_token",
            Self::BytesPerToken => "bytes_per_token",
            Self::Uploads => "uploads",
            Self::StoredBytes => "stored_bytes",
        }
    }

    /// Whether it limits bytes, not uploads.
    #[must_use]
    pub fn is_of_bytes(self) -> bool {
        matches!(
            self,
            Self::BytesPerDayPerDevice
                | Self::BytesPerDayPerSubject
                | Self::BytesPerToken
                | Self::StoredBytes
        )
    }

    /// Whether a place comes free when an upload ends.
    #[must_use]
    pub fn is_of_open(self) -> bool {
        matches!(self, Self::OpenPerDevice | Self::OpenPerToken)
    }
}

/// The limits that are set. What is not named is not limited; 0 lets nothing in.
pub type Limits = BTreeMap<LimitName, u64>;

/// A limit that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitHit {
    /// Which.
    pub limit: LimitName,
    /// How much it allows.
    pub allowed: u64,
    /// How much of that is left.
    pub left: u64,
    /// When it begins anew; `None` if it does not.
    pub resets_at: Option<Timestamp>,
}

/// How much of a limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Which.
    pub limit: LimitName,
    /// How much it allows.
    pub allowed: u64,
    /// How much of that is used.
    pub used: u64,
    /// How much is left.
    pub left: u64,
    /// When it begins anew; `None` if it does not.
    pub resets_at: Option<Timestamp>,
}

/// Whose an upload is: who created it, and where it belongs. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadOwner {
    /// Where it belongs.
    pub space: SpaceName,
    /// Who created it; nobody in particular where nobody had to say.
    pub subject: Option<Subject>,
    /// The token it was created with.
    pub token: Option<TokenId>,
    /// The device that it is counted for.
    pub device: Option<Device>,
}

/// A device as it is counted: all that give no name are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// It said so.
    Named(DeviceId),
    /// It said nothing.
    Unnamed,
}

impl Device {
    /// Its name in the catalog.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Named(id) => id.as_str(),
            Self::Unnamed => "",
        }
    }
}

impl UploadOwner {
    /// Of what `caller` creates.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        let unnamed = caller.guest.then_some(Device::Unnamed);
        Self {
            space: caller.space.clone(),
            subject: caller.subject.clone(),
            token: caller.token.clone(),
            device: caller.device.clone().map(Device::Named).or(unnamed),
        }
    }

    /// Whether `caller` may go on with it, given its key. What nobody in particular created is anybody's who has its key.
    #[must_use]
    pub fn is(&self, caller: &Caller) -> bool {
        let theirs = self.space == caller.space && self.subject == caller.subject;
        self.subject.is_none() || theirs || caller.looks_after(&self.space)
    }
}
