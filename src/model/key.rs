//! Where an object goes: the key template and the keys made from it.

use std::fmt;

use super::handle::UploadId;

/// The name of an object in the store, relative to the store's own prefix or folder.
///
/// Safe by construction: segments of letters, digits, `-`, `_` and `.`, none of them `.` or `..`, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(String);

impl StoreKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl StoreKey {
    /// The key of a partial upload's object, among what is staged.
    #[must_use]
    pub fn of_part(id: UploadId) -> Self {
        Self(format!("staging/{id}"))
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no safe key.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a safe object key")]
pub struct InvalidStoreKey(String);

impl std::str::FromStr for StoreKey {
    type Err = InvalidStoreKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let safe = !text.is_empty()
            && text.len() <= 1024
            && text.split('/').all(|segment| {
                !matches!(segment, "" | "." | "..")
                    && segment.bytes().all(|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
                    })
            });
        if safe {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidStoreKey(text.to_owned()))
        }
    }
}

/// How an object's key is made: text around `{id}`.
///
/// The id makes every key unique, so an object can be filled in place and never meets another upload's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    before: String,
    after: String,
}

/// The template cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("the key template {template:?} {why}")]
pub struct InvalidTemplate {
    template: String,
    why: &'static str,
}

impl KeyTemplate {
    /// The key of one upload's object.
    #[must_use]
    pub fn fill(&self, id: UploadId) -> StoreKey {
        StoreKey(format!("{}{id}{}", self.before, self.after))
    }
}

impl std::str::FromStr for KeyTemplate {
    type Err = InvalidTemplate;

    fn from_str(template: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidTemplate {
            template: template.to_owned(),
            why,
        };
        let (before, after) = template
            .split_once("{id}")
            .ok_or_else(|| invalid("has to contain {id}"))?;
        if before.contains(['{', '}']) || after.contains(['{', '}']) {
            return Err(invalid("may have one placeholder only, {id}"));
        }
        let made = Self {
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let sample = made.fill(UploadId::from_bytes([0; 16]));
        sample.0.parse::<StoreKey>().map_err(|_| {
            invalid("may have only letters, digits, '-', '_', '.' and '/' beside {id}, with no empty, '.' or '..' segment")
        })?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_with_the_id() {
        let id = UploadId::generate();
        let template: KeyTemplate = "media/{id}.bin".parse().expect("valid");
        assert_eq!(template.fill(id).as_str(), format!("media/{id}.bin"));
    }

    #[test]
    fn a_template_that_leaves_its_folder_or_could_be_shared_is_refused() {
        for template in [
            "",
            "fixed",
            "{sha256}",
            "{id}/{filename}",
            "../{id}",
            "/{id}",
            "a//{id}",
            "{id}/..",
            "a b/{id}",
        ] {
            assert!(template.parse::<KeyTemplate>().is_err(), "{template:?}");
        }
    }
}
