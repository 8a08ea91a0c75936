//! Who asks, and what they were given.
//!
//! A [`Caller`] is what a token (or the want of one) comes to, whatever kind of token it was. Names that come from outside
//! are checked when they are parsed, so that they can stand in a log, a key or a query.

use std::fmt;
use std::str::FromStr;

use super::range::Length;

/// Why a text cannot be such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has to have {at_most} characters or fewer of {of}, and at least one")]
pub struct InvalidName {
    what: &'static str,
    at_most: usize,
    of: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $at_most:literal, $of:literal, $good:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let good: fn(u8) -> bool = $good;
                if (1..=$at_most).contains(&text.len()) && text.bytes().all(good) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, at_most: $at_most, of: $of })
                }
            }
        }
    };
}

name!(
    /// A space: what uploads are kept apart by. It can stand in an object's key.
    SpaceName,
    "a space's name",
    64,
    "a-z, 0-9, - and _",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
);
name!(
    /// Who a token speaks for.
    Subject,
    "a subject",
    255,
    "visible ASCII",
    |byte| byte.is_ascii_graphic()
);
name!(
    /// A token's own name, by which it is counted and revoked. No secret.
    TokenId,
    "a token's id",
    128,
    "visible ASCII",
    |byte| byte.is_ascii_graphic()
);
name!(
    /// The device that a request says it comes from.
    DeviceId,
    "Device-Id",
    128,
    "visible ASCII",
    |byte| byte.is_ascii_graphic()
);

impl Default for SpaceName {
    /// The space of whoever has no other.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything, for everybody.
    Admin,
    /// To create uploads, and to go on with one's own.
    Upload,
    /// To read content without the upload's key.
    Read,
}

impl Scope {
    /// Its name in tokens, on the command line and in the catalog.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Upload => "upload",
            Self::Read => "read",
        }
    }
}

/// The text names no scope.
#[derive(Debug, thiserror::Error)]
#[error("a scope has to be admin, upload or read")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "admin" => Ok(Self::Admin),
            "upload" => Ok(Self::Upload),
            "read" => Ok(Self::Read),
            _ => Err(UnknownScope),
        }
    }
}

/// A set of scopes. Having [`Scope::Admin`] is having them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Whether something is allowed.
    #[must_use]
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// Media types that are taken, as in `image/*` or `video/mp4`. None named: all are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaTypes(Vec<String>);

/// The text is no media type and no `type/*`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} has to be a media type, as in \"image/jpeg\", or all of a kind, as in \"image/*\"")]
pub struct InvalidMediaType(String);

impl MediaTypes {
    /// From patterns.
    pub fn new(patterns: &[String]) -> Result<Self, InvalidMediaType> {
        let is_token = |part: &str| {
            !part.is_empty()
                && (part.bytes())
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        for pattern in patterns {
            let sound = pattern
                .split_once('/')
                .is_some_and(|(kind, rest)| is_token(kind) && (rest == "*" || is_token(rest)));
            if !sound {
                return Err(InvalidMediaType(pattern.clone()));
            }
        }
        Ok(Self(
            patterns
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        ))
    }

    /// Whether any type is taken.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether content of this type is taken. What comes after `;` makes no difference.
    #[must_use]
    pub fn allow(&self, media_type: &str) -> bool {
        let essence = essence(media_type);
        self.is_any()
            || self
                .0
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(kind) => essence.starts_with(kind),
                    None => *pattern == essence,
                })
    }
}

impl fmt::Display for MediaTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// A media type without its parameters, in lower case.
#[must_use]
pub fn essence(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// What a token itself limits, beyond what its space does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The largest upload.
    pub max_size: Option<Length>,
    /// How many uploads may be made with it, in all.
    pub max_uploads: Option<u64>,
    /// How many bytes they may have together.
    pub max_bytes: Option<u64>,
    /// What may be uploaded.
    pub content_types: MediaTypes,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whom it is; nobody in particular where nobody has to say.
    pub subject: Option<Subject>,
    /// The token that said so.
    pub token: Option<TokenId>,
    /// The device that it says it is.
    pub device: Option<DeviceId>,
    /// It has few connections, and what it sends next waits for one: a page, whose browser opens six by HTTP/1.
    pub few_connections: bool,
    /// Many share the token, so that each device has its own limits, and all that name none are one.
    pub guest: bool,
    /// Where its uploads belong.
    pub space: SpaceName,
    /// The token is of this space alone; one that is of none may look after all of them.
    pub bound: bool,
    /// What it may.
    pub scopes: Scopes,
    /// What its token limits.
    pub grant: Grant,
}

impl Caller {
    /// Whoever asks a server that asks for no token: they may upload, and read by their uploads' keys.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            subject: None,
            token: None,
            device: None,
            few_connections: false,
            guest: false,
            space: SpaceName::default(),
            bound: true,
            scopes: [Scope::Upload].into_iter().collect(),
            grant: Grant::default(),
        }
    }

    /// Whether the caller may read what is in a space without having more than its name. Where nobody has to say who they are,
    /// whoever knows the name may.
    #[must_use]
    pub fn reads_all_of(&self, space: &SpaceName) -> bool {
        let at_home = !self.bound || self.space == *space;
        at_home && (self.token.is_none() || self.scopes.allow(Scope::Read))
    }

    /// Whether the caller may look after the uploads of a space.
    #[must_use]
    pub fn looks_after(&self, space: &SpaceName) -> bool {
        self.scopes.allow(Scope::Admin) && (!self.bound || self.space == *space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_hide_something_are_refused() {
        for wrong in ["", "Photos", "a b", "a/b", "..", "é", &"x".repeat(65)] {
            assert!(wrong.parse::<SpaceName>().is_err(), "{wrong:?}");
        }
        assert!("photos_2-b".parse::<SpaceName>().is_ok());
        for wrong in ["", "a b", "a\n", "é", &"x".repeat(256)] {
            assert!(wrong.parse::<Subject>().is_err(), "{wrong:?}");
            assert!(wrong.parse::<DeviceId>().is_err(), "{wrong:?}");
        }
        assert_eq!(
            "".parse::<SpaceName>().expect_err("empty").to_string(),
            "a space's name has to have 64 characters or fewer of a-z, 0-9, - and _, and at least one"
        );
    }

    #[test]
    fn admin_is_everything_and_nothing_else_is_more_than_itself() {
        let admin: Scopes = [Scope::Admin].into_iter().collect();
        let read: Scopes = [Scope::Read].into_iter().collect();
        assert!(admin.allow(Scope::Upload) && admin.allow(Scope::Read));
        assert!(read.allow(Scope::Read) && !read.allow(Scope::Upload) && !read.allow(Scope::Admin));
        assert!(!Scopes::default().allow(Scope::Read));
    }

    #[test]
    fn media_types_are_allowed_one_by_one_or_by_kind() {
        let of = |names: &[&str]| {
            MediaTypes::new(
                &names
                    .iter()
                    .map(|&name| name.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let some = of(&["image/*", "Video/MP4"]).expect("sound");
        for taken in ["image/png", "IMAGE/JPEG; q=1", "video/mp4"] {
            assert!(some.allow(taken), "{taken}");
        }
        for refused in ["imagex/png", "video/webm", "video/mp4x", "", "text/plain"] {
            assert!(!some.allow(refused), "{refused}");
        }
        assert!(MediaTypes::default().allow("anything/else"));
        for wrong in ["image", "*/*", "image/", "/png", "image/p ng", "image/*x"] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_admin_of_one_space_looks_after_that_one_alone() {
        let photos: SpaceName = "photos".parse().expect("a name");
        let mut admin = Caller {
            scopes: [Scope::Admin].into_iter().collect(),
            space: photos.clone(),
            ..Caller::anonymous()
        };
        assert!(admin.looks_after(&photos) && !admin.looks_after(&SpaceName::default()));
        admin.bound = false;
        assert!(admin.looks_after(&SpaceName::default()));
        assert!(!Caller::anonymous().looks_after(&SpaceName::default()));
    }
}
