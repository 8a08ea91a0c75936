//! The file's name in `Content-Disposition` (RFC 6266, RFC 8187).

use percent_encoding::percent_decode_str;

/// The name that the field gives: `filename*` before `filename`, whatever the disposition. What cannot be read gives none.
pub(super) fn filename(field: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let mut rest = field.split_once(';')?.1;
    while let Some((name, value, after)) = parameter(rest) {
        if name.eq_ignore_ascii_case("filename") {
            plain.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("filename*") {
            extended = extended.or_else(|| decoded(&value));
        }
        rest = after;
    }
    extended.or(plain).filter(|name| !name.is_empty())
}

/// The first parameter's name and value, and what comes after it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let rest = rest.trim_start();
    let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
        unquoted(quoted)?
    } else {
        let (value, _) = rest.split_once(';').unwrap_or((rest, ""));
        (value.trim_end().to_owned(), &rest[value.len()..])
    };
    let after = rest.split_once(';').map_or("", |(_, after)| after);
    Some((name.trim(), value, after))
}

/// The text of a quoted string, whose first quote is gone, and what comes after its last. `None`: there is no last.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// RFC 8187: `charset'language'percent-encoded`.
fn decoded(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = percent_decode_str(encoded);
    if charset.eq_ignore_ascii_case("utf-8") {
        bytes.decode_utf8().ok().map(std::borrow::Cow::into_owned)
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.map(char::from).collect())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::fields::attachment;

    #[test]
    fn names_are_found() {
        for (field, expected) in [
            ("inline; filename=a.jpg", Some("a.jpg")),
            ("attachment;filename=\"a b;c.jpg\" ; x=1", Some("a b;c.jpg")),
            ("inline; x=\"filename=no\"; FILENAME=yes", Some("yes")),
            (r#"inline; filename="say \"hi\"""#, Some("say \"hi\"")),
            (
                "inline; filename=\"a.jpg\"; filename*=UTF-8''%C3%A9%20.jpg",
                Some("é .jpg"),
            ),
            ("inline; filename*=utf-8'de'%e2%82%ac", Some("€")),
            ("inline; filename*=iso-8859-1''%E9", Some("é")),
            ("inline; filename*=UTF-8''%FF; filename=b", Some("b")),
            ("inline; filename*=koi8-r''%C1; filename=b", Some("b")),
            ("inline; filename=é.jpg", Some("é.jpg")),
            ("inline; filename=", None),
            ("inline; filename=\"open", None),
            ("inline; filename", None),
            ("filename=a", None),
            ("", None),
        ] {
            assert_eq!(filename(field).as_deref(), expected, "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_field_panics(field in any::<String>(), like in "inline; [filename*=\"\\\\; a%2é']{0,40}") {
            let _ = (filename(&field), filename(&like));
        }

        #[test]
        fn what_is_written_is_read_again(name in "[^\\p{Cc}]{1,40}") {
            let field = attachment(Some(&name));
            prop_assert_eq!(filename(field.to_str().expect("ASCII")), Some(name));
        }
    }
}
