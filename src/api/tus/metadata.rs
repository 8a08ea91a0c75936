//! `Upload-Metadata`: pairs of a key and a value in base64.

use std::collections::{BTreeMap, btree_map};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::error::Problem;
use crate::api::fields::{checked_filename, is_media_type};
use crate::model::upload::Declared;

/// How many bytes all keys and decoded values may have together.
const MAX_BYTES: usize = 4096;

/// Where clients put a file's name and its media type, the first before the second.
const FILENAME: [&str; 2] = ["filename", "name"];
const MEDIA_TYPE: [&str; 2] = ["filetype", "type"];

/// What the field declares about a file. It is kept to the letter as well, since HEAD gives it back.
pub(super) fn parse(field: &str) -> Result<Declared, Problem> {
    let mut declared = Declared {
        sequential: true,
        ..Declared::default()
    };
    if field.trim().is_empty() {
        return Ok(declared);
    }
    // What is no text stays in the field alone.
    let mut texts: BTreeMap<String, String> = pairs(field)?
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), String::from_utf8(value).ok()?)))
        .collect();
    let first_of = |keys: [&'static str; 2], sound: fn(&str) -> bool| {
        keys.into_iter()
            .find(|key| texts.get(*key).is_some_and(|value| sound(value)))
    };
    let filename = first_of(FILENAME, |name| !name.is_empty());
    let media_type = first_of(MEDIA_TYPE, is_media_type);
    declared.filename = filename
        .and_then(|key| texts.remove(key))
        .map(checked_filename)
        .transpose()?;
    declared.content_type = media_type.and_then(|key| texts.remove(key));
    declared.metadata = texts;
    declared.metadata_field = Some(field.to_owned());
    Ok(declared)
}

fn pairs(field: &str) -> Result<BTreeMap<&str, Vec<u8>>, Problem> {
    let mut pairs = BTreeMap::new();
    let mut bytes = 0;
    for pair in field.split(',') {
        // Whoever joins two lines of a field puts a space after the comma.
        let pair = pair.trim_start_matches([' ', '\t']);
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::bad_request(
                "Upload-Metadata has to be \"key base64,key base64\": a key is visible ASCII and not empty",
            ));
        }
        let value = STANDARD.decode(value).map_err(|_| {
            Problem::bad_request("Upload-Metadata has a value that is no base64 with padding")
        })?;
        bytes += key.len() + value.len();
        if bytes > MAX_BYTES {
            return Err(Problem::bad_request(format!(
                "Upload-Metadata may have at most {MAX_BYTES} bytes when it is decoded"
            )));
        }
        match pairs.entry(key) {
            btree_map::Entry::Vacant(place) => place.insert(value),
            btree_map::Entry::Occupied(_) => {
                return Err(Problem::bad_request("Upload-Metadata has a key twice"));
            }
        };
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base64(value: &str) -> String {
        STANDARD.encode(value)
    }

    #[test]
    fn names_and_types_are_taken_from_where_clients_put_them() {
        let parse = |pairs: &[(&str, &str)]| {
            let field: Vec<_> = pairs
                .iter()
                .map(|(key, value)| format!("{key} {}", base64(value)))
                .collect();
            let declared = super::parse(&field.join(",")).expect("sound");
            let rest: Vec<_> = declared.metadata.into_keys().collect();
            (declared.filename, declared.content_type, rest.join(" "))
        };
        let text = |text: &str| Some(text.to_owned());
        for (pairs, expected) in [
            (
                &[("filename", "é.txt"), ("filetype", "text/plain")][..],
                (text("é.txt"), text("text/plain"), String::new()),
            ),
            (
                &[("name", "a"), ("type", "image/png"), ("album", "1")],
                (text("a"), text("image/png"), "album".to_owned()),
            ),
            (
                &[("name", "b"), ("filename", "a")],
                (text("a"), None, "name".to_owned()),
            ),
            (
                &[("filename", ""), ("filetype", "no type")],
                (None, None, "filename filetype".to_owned()),
            ),
        ] {
            assert_eq!(parse(pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn values_may_be_absent_and_what_is_no_text_is_only_given_back() {
        let field = "is_confidential,empty ,binary /w==, after-a-space YQ==";
        let declared = parse(field).expect("sound");
        let shown: Vec<_> = declared.metadata.iter().collect();
        insta::assert_debug_snapshot!(shown, @r#"
        [
            (
                "after-a-space",
                "a",
            ),
            (
                "empty",
                "",
            ),
            (
                "is_confidential",
                "",
            ),
        ]
        "#);
        assert_eq!(declared.metadata_field.as_deref(), Some(field));
        assert!(declared.sequential);
        for nothing in ["", "  "] {
            assert_eq!(parse(nothing).expect("nothing").metadata_field, None);
        }
    }

    #[test]
    fn what_cannot_be_taken_is_refused() {
        let long = |bytes: usize| format!("k {}", base64(&"x".repeat(bytes)));
        assert!(parse(&long(4095)).is_ok());
        for wrong in [
            ",".to_owned(),
            "a YQ==,".to_owned(),
            "a YQ==,,b YQ==".to_owned(),
            " YQ==,b".to_owned() + ", ",
            "a YQ".to_owned(),
            "a Y Q==".to_owned(),
            "a  YQ==".to_owned(),
            "a YQ== b".to_owned(),
            "a *".to_owned(),
            "a _-8=".to_owned(),
            "a YQ==,a Yg==".to_owned(),
            "a,a".to_owned(),
            "é YQ==".to_owned(),
            "a\tb YQ==".to_owned(),
            long(4096),
            format!("filename {}", base64("a\nb")),
            format!("filename {}", base64(&"x".repeat(1025))),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(field in "[ -~]{0,60}|([a-z]{1,3} [a-zA-Z=]{0,6},?){0,6}") {
            let _ = parse(&field);
        }

        #[test]
        fn what_is_declared_comes_back(pairs in prop::collection::btree_map("[a-z]{10,12}", ".{0,20}", 1..8)) {
            let field: Vec<_> = pairs.iter().map(|(key, value)| format!("{key} {}", base64(value))).collect();
            let declared = parse(&field.join(",")).expect("sound");
            prop_assert_eq!(declared.metadata, pairs);
        }
    }
}
