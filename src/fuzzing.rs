//! What the fuzz targets call: each takes any bytes, has a parser read them, and panics where it breaks its word.
//!
//! The targets of a protocol stand beside its parsers; those of what all share are here. `fuzz/` makes a binary of each
//! ([`TARGETS`] lists them), and a test of this module feeds each what is kept of its corpus.

use std::path::Path;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;

use crate::api::error::Problem;
use crate::api::fields::{
    CONTENT_DIGEST, REPR_DIGEST, content_digests, digest_field, digest_value,
};
use crate::api::forwarded::{Peer, Trusted};
use crate::api::{ietf, native, objects, s3, tus};
use crate::auth::Links;
use crate::config::Config;
use crate::model::key::{KeyFacts, KeyTemplate};
use crate::model::token::LinkSecret;
use crate::model::{
    ApiKey, ByteRange, Digest, DigestAlgorithm, Handle, Plan, RangeSet, SpaceName, StoreKey,
    Subject, Timestamp, UploadId, UploadKey,
};

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// Each target by its name.
pub const TARGETS: [(&str, Target); 18] = [
    ("content_range", native::fuzz::content_range),
    ("native", native::fuzz::request),
    ("tus", tus::fuzz::request),
    ("tus_metadata", tus::fuzz::metadata),
    ("tus_concat", tus::fuzz::concat),
    ("tus_checksum", tus::fuzz::checksum),
    ("ietf", ietf::fuzz::request),
    ("s3", s3::fuzz::request),
    ("objects", objects::fuzz::request),
    ("form", objects::fuzz::form),
    ("forwarded", forwarded),
    ("digest_fields", digest_fields),
    ("digests", digests),
    ("handles", handles),
    ("key_template", key_template),
    ("link", link),
    ("ranges", ranges),
    ("configuration", configuration),
];

/// Runs a target by its name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.expect("there is such a target").1(data);
}

/// The bytes as text, if they are.
pub(crate) fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// A line, header fields up to an empty line, and a body. What cannot be a field on the wire is passed over.
pub(crate) fn message(data: &[u8]) -> (&str, HeaderMap, &[u8]) {
    let (first, mut rest) = line(data);
    let mut headers = HeaderMap::new();
    loop {
        let (field, after) = line(rest);
        rest = after;
        if field.is_empty() {
            return (text(first).unwrap_or_default(), headers, rest);
        }
        let colon = field.iter().position(|byte| *byte == b':');
        let (name, value) = field.split_at(colon.unwrap_or(field.len()));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
}

fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 1..]))
}

/// What a parser hands out instead of a command has to be the client's fault, and to say so.
pub(crate) fn check_problem(problem: &Problem) {
    assert!(problem.status.is_client_error(), "{problem:?}");
    assert!(!problem.detail.is_empty());
    assert_eq!(problem.to_json()["status"], problem.status.as_u16());
}

fn digest_fields(data: &[u8]) {
    let (_, headers, _) = message(data);
    for name in [CONTENT_DIGEST, REPR_DIGEST] {
        match digest_field(&headers, &name) {
            Ok(digests) if digests.is_empty() => {}
            Ok(digests) => {
                let mut again = HeaderMap::new();
                again.insert(name.clone(), digest_value(&digests));
                let read = digest_field(&again, &name).expect("what we write, we read");
                assert_eq!(read, digests);
            }
            Err(problem) => check_problem(&problem),
        }
    }
    if let Err(problem) = content_digests(&headers) {
        check_problem(&problem);
    }
}

fn digests(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if let Ok(algorithm) = name.parse::<DigestAlgorithm>() {
        assert!(algorithm.name().eq_ignore_ascii_case(name));
        if let Ok(digest) = Digest::from_hex(algorithm, value) {
            assert!(digest.to_hex().eq_ignore_ascii_case(value));
            assert_eq!(digest.value().len(), algorithm.len());
        }
    }
}

fn handles(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(handle) = text.parse::<Handle>() {
        assert_eq!(handle.reveal(), text, "one handle has one spelling");
    }
    if let Ok(key) = text.parse::<UploadKey>() {
        assert_eq!(key.reveal(), text, "one key has one spelling");
    }
    if let Ok(key) = text.parse::<ApiKey>() {
        assert_eq!(key.reveal(), text, "one API key has one spelling");
    }
    if let Ok(id) = text.parse::<UploadId>() {
        assert_eq!(id.to_string(), text, "one id has one spelling");
    }
    if let Ok(plan) = text.parse::<Plan>() {
        assert_eq!(plan.to_string().parse::<Plan>().ok(), Some(plan));
    }
}

fn key_template(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (template, name) = text.split_once('\n').unwrap_or((text, "a file.tar.gz"));
    let Ok(template) = template.parse::<KeyTemplate>() else {
        return;
    };
    let subject = name.parse::<Subject>().ok();
    let space = "default".parse::<SpaceName>().expect("a name");
    let facts = KeyFacts {
        id: UploadId::from_bytes([7; 16]),
        filename: Some(name),
        space: &space,
        subject: subject.as_ref(),
        created_at: Timestamp(1_700_000_000_000),
    };
    let sha256 = Digest::new(DigestAlgorithm::Sha256, vec![7; 32]).expect("32 bytes");
    let key = template.fill(&facts, Some(&sha256)).expect("all is known");
    let again: StoreKey = key
        .as_str()
        .parse()
        .expect("every key that we make is safe");
    assert_eq!(again, key);
    assert!(key.as_str().split('/').all(|segment| segment.len() <= 255));
}

fn link(data: &[u8]) {
    let Some(query) = text(data) else { return };
    let links = Links::with(LinkSecret([7; 32]));
    let upload = UploadId::from_bytes([7; 16]);
    assert!(
        !links.check(upload, query, Timestamp(1_700_000_000_000)),
        "signed by nobody"
    );
}

fn forwarded(data: &[u8]) {
    let (_, headers, _) = message(data);
    let trusted = Trusted {
        networks: vec!["10.0.0.0/8".parse().expect("a network")],
        unix: true,
    };
    let proxy = Peer::Address([10, 0, 0, 1].into());
    let _ = trusted.client(proxy, Scheme::HTTP, &headers);
    let stranger = std::net::IpAddr::from([192, 0, 2, 1]);
    let client = trusted.client(Peer::Address(stranger), Scheme::HTTP, &headers);
    assert_eq!(client.address, stranger, "nobody speaks for a stranger");
}

/// Three bytes are an operation: on which of 256 places it begins, on how many, and whether they come or go.
fn ranges(data: &[u8]) {
    let mut set = RangeSet::new();
    let mut model = [false; 512];
    for operation in data.chunks_exact(3) {
        let (start, len) = (usize::from(operation[0]), usize::from(operation[1]));
        let Some(range) = ByteRange::new(start as u64, (start + len) as u64) else {
            continue;
        };
        let comes = operation[2].is_multiple_of(4) || operation[2].is_multiple_of(3);
        if comes {
            set.insert(range);
        } else {
            set.remove(range);
        }
        model[start..start + len].fill(comes);
        assert_eq!(set.covers(range), comes);
    }
    let mut listed = [false; 512];
    let mut last_end = None;
    for range in set.iter() {
        assert!(
            last_end < Some(range.start()),
            "sorted, and neighbours are one"
        );
        last_end = Some(range.end());
        let place = |offset: u64| usize::try_from(offset).expect("one of 512");
        listed[place(range.start())..place(range.end())].fill(true);
    }
    assert_eq!(listed, model);
    let offset = model.iter().position(|there| !there).unwrap_or(512);
    assert_eq!(set.contiguous().get(), offset as u64);
}

fn configuration(data: &[u8]) {
    let (file, variables) = data.split_at(
        data.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(data.len()),
    );
    let variables = String::from_utf8_lossy(variables.get(1..).unwrap_or_default());
    let variables = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("JUMAR_{name}"), value.to_owned()));
    let path = std::env::temp_dir().join(format!("jumar-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, file).expect("a file can be written");
    if let Err(error) = Config::read(Some(Path::new(&path)), variables) {
        assert!(!error.key.is_empty() || !error.remedy.is_empty());
        assert!(!error.to_string().is_empty());
    }
    let _ = std::fs::remove_file(&path);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of each corpus: seeds, and what once broke something.
    #[test]
    fn corpora() {
        let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let files = std::fs::read_dir(all.join(name));
            let mut read = 0;
            for file in files.unwrap_or_else(|error| panic!("{name} has no corpus: {error}")) {
                let path = file.unwrap().path();
                println!("{}", path.display());
                target(&std::fs::read(&path).unwrap());
                read += 1;
            }
            assert!(read > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn each_target_has_a_binary() {
        let manifest = include_str!("../fuzz/Cargo.toml");
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
