//! Where an object goes: the key template and the keys made from it.

use std::fmt;

use super::caller::{SpaceName, Subject};
use super::digest::{Digest, DigestAlgorithm};
use super::handle::UploadId;
use super::time::Timestamp;
use sha2::Digest as _;

/// The name of an object in the store, relative to the store's own prefix or folder.
///
/// Safe by construction: segments of letters, digits, `-`, `_` and `.`, none of them `.` or `..`, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(String);

/// What the keys begin with that no template makes.
const STAGING: &str = "staging/";

impl StoreKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which an upload is brought together whose object has another key in the end, or none of its own.
    #[must_use]
    pub fn staged(id: UploadId) -> Self {
        Self(format!("{STAGING}{id}"))
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

/// How an object's key is made: text with placeholders.
///
/// `{id}` makes every key unique, and known when the upload is created: the object is filled in place. `{sha256}` without it
/// makes the key an address of the content: uploads of the same bytes share one object. One of the two has to be there, so
/// that two uploads never fight over a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Id,
    Sha256,
    Filename,
    Ext,
    Date,
    Space,
    Subject,
}

/// What a key is made from.
#[derive(Debug, Clone, Copy)]
pub struct KeyFacts<'a> {
    /// The upload.
    pub id: UploadId,
    /// The file's name, as its client declared it.
    pub filename: Option<&'a str>,
    /// The space that it is in.
    pub space: &'a SpaceName,
    /// Who created it, if anybody said so.
    pub subject: Option<&'a Subject>,
    /// When the upload was created; its day in UTC is the date.
    pub created_at: Timestamp,
}

/// The template cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("the key template {template:?} {why}")]
pub struct InvalidTemplate {
    template: String,
    why: String,
}

/// What of a file's name goes into a key at most, in bytes.
const MAX_NAME_BYTES: usize = 128;
const MAX_EXT_BYTES: usize = 16;
/// What stands for a name or an extension where there is none.
const NO_NAME: &str = "file";
const NO_EXT: &str = "bin";
/// What stands for a subject where nobody said who they are.
const NO_SUBJECT: &str = "nobody";
/// The most that one segment of a key may have: what file systems take as a name.
const MAX_SEGMENT_BYTES: usize = 255;

impl KeyTemplate {
    /// Whether keys cannot be made before the content is known.
    #[must_use]
    pub fn needs_content(&self) -> bool {
        self.0.contains(&Piece::Sha256)
    }

    /// Whether a key is an address of the content, that several uploads may share.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.needs_content() && !self.0.contains(&Piece::Id)
    }

    /// The key of one upload's object; `None` if it needs the content's SHA-256 and none is given.
    #[must_use]
    pub fn fill(&self, facts: &KeyFacts<'_>, sha256: Option<&Digest>) -> Option<StoreKey> {
        let mut key = self.text(facts, sha256)?;
        if key.starts_with(STAGING) {
            // Only a file's name or extension can have brought it there.
            key.insert(0, '_');
        }
        Some(StoreKey(key))
    }

    fn text(&self, facts: &KeyFacts<'_>, sha256: Option<&Digest>) -> Option<String> {
        let mut key = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => key.push_str(text),
                Piece::Id => key.push_str(&facts.id.to_string()),
                Piece::Sha256 => key.push_str(&sha256?.to_hex()),
                Piece::Filename => key.push_str(&safe_name(facts.filename)),
                Piece::Ext => key.push_str(&extension(facts.filename)),
                Piece::Date => key.push_str(&facts.created_at.to_utc().date().to_string()),
                Piece::Space => key.push_str(facts.space.as_str()),
                Piece::Subject => key.push_str(&safe_subject(facts.subject)),
            }
        }
        Some(key)
    }
}

/// A subject as it stands in a key: what cannot stand there is replaced, and what would be cut off or could be mistaken for
/// another's is told apart by a hash.
fn safe_subject(subject: Option<&Subject>) -> String {
    let Some(subject) = subject else {
        return NO_SUBJECT.to_owned();
    };
    let text = subject.as_str();
    let safe: String = (text.chars().take(MAX_NAME_BYTES))
        .map(|char| {
            if char.is_ascii_alphanumeric() || char == '-' {
                char
            } else {
                '_'
            }
        })
        .collect();
    if safe == text && safe != NO_SUBJECT {
        return safe;
    }
    let hash = sha2::Sha256::digest(text.as_bytes());
    format!("{safe}-{}", hex::encode(&hash[..8]))
}

/// A file's name as a segment of a key: every character that is no letter, digit, `-`, `_` or `.` of ASCII becomes `_`, and
/// so do dots at the front. Of a long name the end stays.
fn safe_name(name: Option<&str>) -> String {
    let safe: String = name
        .unwrap_or_default()
        .chars()
        .map(|char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => char,
            _ => '_',
        })
        .collect();
    let end = &safe[safe.len().saturating_sub(MAX_NAME_BYTES)..];
    let rest = end.trim_start_matches('.');
    if rest.is_empty() {
        return NO_NAME.to_owned();
    }
    format!("{}{rest}", "_".repeat(end.len() - rest.len()))
}

/// What follows the last dot of a file's name, in lower case, if it looks like an extension.
fn extension(name: Option<&str>) -> String {
    name.and_then(|name| name.rsplit_once('.'))
        .map(|(_, ext)| ext.to_ascii_lowercase())
        .filter(|ext| {
            (1..=MAX_EXT_BYTES).contains(&ext.len())
                && ext.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
        .unwrap_or_else(|| NO_EXT.to_owned())
}

impl std::str::FromStr for KeyTemplate {
    type Err = InvalidTemplate;

    fn from_str(template: &str) -> Result<Self, Self::Err> {
        let invalid = |why: String| InvalidTemplate {
            template: template.to_owned(),
            why,
        };
        let mut pieces = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (text, placeholder) = rest.split_once('{').unwrap_or((rest, ""));
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            if text.len() == rest.len() {
                break;
            }
            let (name, after) = placeholder
                .split_once('}')
                .ok_or_else(|| invalid("has a { without its }".to_owned()))?;
            pieces.push(match name {
                "id" => Piece::Id,
                "sha256" => Piece::Sha256,
                "filename" => Piece::Filename,
                "ext" => Piece::Ext,
                "date" => Piece::Date,
                "space" => Piece::Space,
                "subject" => Piece::Subject,
                _ => {
                    return Err(invalid(format!(
                        "has an unknown placeholder {{{name}}}; known are {{id}}, {{sha256}}, {{filename}}, {{ext}}, {{date}}, {{space}}, {{subject}}"
                    )));
                }
            });
            rest = after;
        }
        let made = Self(pieces);
        if !made.needs_content() && !made.0.contains(&Piece::Id) {
            return Err(invalid(
                "has to contain {id} or {sha256}: else two uploads could want the same key"
                    .to_owned(),
            ));
        }
        let longest = "n".repeat(MAX_NAME_BYTES);
        let space = "s".repeat(64).parse().expect("a name");
        let subject = "@".repeat(255).parse().expect("a name");
        let facts = KeyFacts {
            id: UploadId::from_bytes([0; 16]),
            space: &space,
            subject: Some(&subject),
            filename: Some(&longest),
            created_at: Timestamp(0),
        };
        let any = Digest::new(DigestAlgorithm::Sha256, [0; 32]).ok();
        let sample = made
            .text(&facts, any.as_ref())
            .and_then(|key| key.parse::<StoreKey>().ok())
            .ok_or_else(|| {
                invalid("may have only letters, digits, '-', '_', '.' and '/' beside its placeholders, with no empty, '.' or '..' segment".to_owned())
            })?;
        if sample
            .0
            .split('/')
            .any(|segment| segment.len() > MAX_SEGMENT_BYTES)
        {
            return Err(invalid(format!(
                "makes names that are too long: at most {MAX_SEGMENT_BYTES} characters between two slashes, of which a file's name takes {MAX_NAME_BYTES}"
            )));
        }
        if sample.0.starts_with(STAGING) {
            return Err(invalid(format!(
                "may not begin with {STAGING:?}, where uploads are brought together"
            )));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Timestamp = Timestamp(1_700_000_000_000);

    fn sha256() -> Digest {
        Digest::new(DigestAlgorithm::Sha256, [0xab; 32]).expect("32 bytes")
    }

    fn filled(template: &str, id: UploadId, filename: Option<&str>) -> String {
        let template: KeyTemplate = template.parse().expect("valid");
        let facts = KeyFacts {
            space: &SpaceName::default(),
            subject: None,
            id,
            filename,
            created_at: DAY,
        };
        let key = template.fill(&facts, Some(&sha256())).expect("filled");
        key.as_str().to_owned()
    }

    #[test]
    fn a_template_is_filled_with_what_is_known() {
        let id = UploadId::generate();
        for (template, expected) in [
            ("media/{id}.bin", format!("media/{id}.bin")),
            ("{sha256}", sha256().to_hex()),
            ("{date}/{id}.{ext}", format!("2023-11-14/{id}.jpg")),
            (
                "{space}/{sha256}/{filename}",
                format!("default/{}/_my_film.JPG", sha256().to_hex()),
            ),
        ] {
            assert_eq!(
                filled(template, id, Some("\u{e9}my film.JPG")),
                expected,
                "{template}"
            );
        }
    }

    #[test]
    fn names_become_safe_and_keep_their_ends() {
        let long = format!("{}.tar", "x".repeat(300));
        for (name, safe, ext) in [
            (None, "file", "bin"),
            (Some(""), "file", "bin"),
            (Some(".."), "file", "bin"),
            (Some("../../etc/passwd"), "___.._etc_passwd", "bin"),
            (Some(".bashrc"), "_bashrc", "bashrc"),
            (Some("a.b c"), "a.b_c", "bin"),
            (Some("a."), "a.", "bin"),
            (Some("\u{1f600}.PNG"), "_.PNG", "png"),
            (Some(&long), &format!("{}.tar", "x".repeat(124)), "tar"),
        ] {
            let id = UploadId::generate();
            assert_eq!(
                filled("{id}/{filename}", id, name),
                format!("{id}/{safe}"),
                "{name:?}"
            );
            assert_eq!(
                filled("{id}.{ext}", id, name),
                format!("{id}.{ext}"),
                "{name:?}"
            );
        }
    }

    #[test]
    fn only_a_key_with_the_content_and_without_the_id_is_shared() {
        for (template, needs_content, shared) in [
            ("{id}", false, false),
            ("{sha256}", true, true),
            ("{date}/{sha256}.{ext}", true, true),
            ("{id}/{sha256}", true, false),
        ] {
            let template: KeyTemplate = template.parse().expect("valid");
            assert_eq!(template.needs_content(), needs_content);
            assert_eq!(template.is_shared(), shared);
            let facts = KeyFacts {
                space: &SpaceName::default(),
                subject: None,
                id: UploadId::generate(),
                filename: None,
                created_at: DAY,
            };
            assert_eq!(template.fill(&facts, None).is_none(), needs_content);
        }
    }

    #[test]
    fn a_template_that_leaves_its_folder_or_could_meet_another_is_refused() {
        for template in [
            "",
            "fixed",
            "{filename}",
            "{date}/{filename}",
            "../{id}",
            "/{id}",
            "a//{id}",
            "{id}/..",
            "a b/{id}",
            "{id",
            "id}",
            "{ID}",
            "{name}/{id}",
            "staging/{id}",
            "{filename}{filename}{id}",
        ] {
            assert!(template.parse::<KeyTemplate>().is_err(), "{template:?}");
        }
        let error = "{name}/{id}".parse::<KeyTemplate>().expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the key template \"{name}/{id}\" has an unknown placeholder {name}; known are {id}, {sha256}, {filename}, {ext}, {date}, {space}, {subject}"
        );
    }

    #[test]
    fn no_name_leads_to_where_uploads_are_brought_together() {
        let id = UploadId::generate();
        for (template, name) in [("{filename}/{id}", "staging"), ("{ext}/{id}", "x.Staging")] {
            let key = filled(template, id, Some(name));
            assert_eq!(key, format!("_staging/{id}"));
            assert_ne!(key, StoreKey::staged(id).as_str());
        }
    }

    proptest! {
        #[test]
        fn whatever_a_file_is_called_its_key_is_safe(name in any::<String>()) {
            let key = filled("{space}/{date}/{filename}/{sha256}.{ext}", UploadId::generate(), Some(&name));
            prop_assert!(key.parse::<StoreKey>().is_ok(), "{key}");
            prop_assert_eq!(key.split('/').count(), 4);
        }
    }
}
