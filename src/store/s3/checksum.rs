//! The checksums that go with the bytes: computing them, combining them, and finding out which the store verifies.

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};
use tokio::sync::OnceCell;

use crate::model::PartReceipt;
use crate::model::upload::PartChecksum;
use crate::store::{Payload, Result, StoreError};

/// Below this a checksum takes less time than handing it to another thread.
const INLINE_BYTES: u64 = 256 * 1024;

/// Which checksum goes with the bytes (`store.s3.checksum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumMode {
    /// The best that the store is seen to verify, found out on first use.
    #[default]
    Auto,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// CRC-32C.
    Crc32c,
    /// MD5, in `Content-MD5`.
    Md5,
    /// None.
    None,
}

/// The mode, and what was found out.
#[derive(Debug)]
pub(super) struct Chosen {
    mode: ChecksumMode,
    found: OnceCell<Option<PartChecksum>>,
}

impl Chosen {
    pub(super) fn new(mode: ChecksumMode) -> Self {
        Self {
            mode,
            found: OnceCell::new(),
        }
    }

    /// Whether the store was seen to verify the checksum, so that what it took is proved; and whether a call that it
    /// refuses over the checksum goes on without.
    pub(super) fn is_auto(&self) -> bool {
        self.mode == ChecksumMode::Auto
    }

    /// The checksum to send. The probe's errors are not remembered.
    pub(super) async fn get(&self, probe: &dyn Probe) -> Result<Option<PartChecksum>> {
        match self.mode {
            ChecksumMode::Crc64Nvme => Ok(Some(PartChecksum::Crc64Nvme)),
            ChecksumMode::Crc32c => Ok(Some(PartChecksum::Crc32c)),
            ChecksumMode::Md5 => Ok(Some(PartChecksum::Md5)),
            ChecksumMode::None => Ok(None),
            ChecksumMode::Auto => {
                let best = self.found.get_or_try_init(|| best(probe)).await?;
                Ok(*best)
            }
        }
    }
}

/// Tells whether the store verifies a kind of checksum.
#[async_trait]
pub(super) trait Probe: Send + Sync {
    /// An error if it cannot be found out now.
    async fn verifies(&self, kind: PartChecksum) -> Result<bool>;
}

async fn best(probe: &dyn Probe) -> Result<Option<PartChecksum>> {
    for kind in BEST_FIRST {
        if probe.verifies(kind).await? {
            tracing::info!(checksum = kind.name(), "the store verifies checksums");
            return Ok(Some(kind));
        }
    }
    tracing::warn!("the store verifies no checksum that we know");
    Ok(None)
}

/// The kinds, the one that we like best first: a CRC-64 of the parts combines to one of the whole.
pub(super) const BEST_FIRST: [PartChecksum; 3] = [
    PartChecksum::Crc64Nvme,
    PartChecksum::Crc32c,
    PartChecksum::Md5,
];

enum Hasher {
    Crc(Box<crc_fast::Digest>, usize),
    Md5(Md5),
}

fn crc(algorithm: CrcAlgorithm) -> Box<crc_fast::Digest> {
    Box::new(crc_fast::Digest::new(algorithm))
}

impl Hasher {
    fn new(kind: PartChecksum) -> Self {
        match kind {
            PartChecksum::Crc64Nvme => Self::Crc(crc(CrcAlgorithm::Crc64Nvme), 8),
            PartChecksum::Crc32c => Self::Crc(crc(CrcAlgorithm::Crc32Iscsi), 4),
            PartChecksum::Md5 => Self::Md5(Md5::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(digest, _) => digest.update(bytes),
            Self::Md5(digest) => digest.update(bytes),
        }
    }

    fn base64(self) -> String {
        match self {
            Self::Crc(digest, len) => STANDARD.encode(&digest.finalize().to_be_bytes()[8 - len..]),
            Self::Md5(digest) => STANDARD.encode(digest.finalize()),
        }
    }
}

/// The checksum of a payload, in base64.
pub(super) async fn compute(kind: PartChecksum, payload: &Payload) -> Result<String> {
    match payload {
        Payload::Memory(frames) if payload.len() <= INLINE_BYTES => Ok(of_frames(kind, frames)),
        Payload::Memory(frames) => {
            let frames = std::sync::Arc::clone(frames);
            tokio::task::spawn_blocking(move || of_frames(kind, &frames))
                .await
                .map_err(|error| StoreError::Unavailable(error.into()))
        }
        Payload::File { .. } | Payload::Objects { .. } => {
            let mut stream = payload.stream();
            let mut hasher = Hasher::new(kind);
            while let Some(bytes) = stream.next().await {
                let bytes = bytes?;
                hasher = tokio::task::spawn_blocking(move || {
                    hasher.update(&bytes);
                    hasher
                })
                .await
                .map_err(|error| StoreError::Unavailable(error.into()))?;
            }
            Ok(hasher.base64())
        }
    }
}

/// The checksum of frames, in base64.
pub(super) fn of_frames(kind: PartChecksum, frames: &[Bytes]) -> String {
    let mut hasher = Hasher::new(kind);
    for frame in frames {
        hasher.update(frame);
    }
    hasher.base64()
}

/// How `CreateMultipartUpload` names a checksum. MD5 is of the request alone and not named.
pub(super) fn named(kind: PartChecksum) -> Option<(ChecksumAlgorithm, ChecksumType)> {
    match kind {
        PartChecksum::Crc64Nvme => Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject)),
        PartChecksum::Crc32c => Some((ChecksumAlgorithm::Crc32C, ChecksumType::Composite)),
        PartChecksum::Md5 => None,
    }
}

/// The one kind that all parts have, if they do.
pub(super) fn common(parts: &[PartReceipt]) -> Option<PartChecksum> {
    let kind = parts.first()?.checksum.as_ref()?.0;
    parts
        .iter()
        .all(|part| part.checksum.as_ref().is_some_and(|(of, _)| *of == kind))
        .then_some(kind)
}

/// The CRC-64 of the whole from those of its parts, in base64; `None` if one of them is none.
pub(super) fn combined_crc64(parts: &[PartReceipt]) -> Option<String> {
    let mut whole = 0;
    for part in parts {
        let (PartChecksum::Crc64Nvme, value) = part.checksum.as_ref()? else {
            return None;
        };
        let value = STANDARD.decode(value).ok()?;
        let value = u64::from_be_bytes(value.try_into().ok()?);
        whole = crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, whole, value, part.range.len());
    }
    (!parts.is_empty()).then(|| STANDARD.encode(whole.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ByteRange, PartNumber};

    #[test]
    fn checksums_have_their_published_values() {
        let frames = [Bytes::from_static(b"1234"), Bytes::from_static(b"56789")];
        for (kind, value) in [
            (
                PartChecksum::Crc64Nvme,
                0xae8b_1486_0a79_9888_u64.to_be_bytes().to_vec(),
            ),
            (PartChecksum::Crc32c, 0xe306_9283_u32.to_be_bytes().to_vec()),
        ] {
            assert_eq!(of_frames(kind, &frames), STANDARD.encode(value));
        }
        assert_eq!(
            of_frames(PartChecksum::Md5, &frames),
            STANDARD.encode(hex::decode("25f9e794323b453885f5181f1b624d0b").unwrap())
        );
    }

    #[test]
    fn parts_combine_to_the_whole() {
        let pieces = [&b"12"[..], b"34567", b"89"];
        let mut start = 0;
        let parts: Vec<PartReceipt> = pieces
            .iter()
            .zip(1..)
            .map(|(piece, number)| {
                let range = ByteRange::new(start, start + piece.len() as u64).unwrap();
                start = range.end();
                PartReceipt {
                    number: PartNumber(number),
                    range,
                    etag: String::new(),
                    checksum: Some((
                        PartChecksum::Crc64Nvme,
                        of_frames(PartChecksum::Crc64Nvme, &[Bytes::from_static(piece)]),
                    )),
                }
            })
            .collect();
        assert_eq!(
            combined_crc64(&parts),
            Some(of_frames(
                PartChecksum::Crc64Nvme,
                &[Bytes::from_static(b"123456789")]
            ))
        );
        assert_eq!(common(&parts), Some(PartChecksum::Crc64Nvme));
    }

    /// Answers what it is told, once each.
    struct Script(std::sync::Mutex<Vec<Result<bool>>>);

    #[async_trait]
    impl Probe for Script {
        async fn verifies(&self, _: PartChecksum) -> Result<bool> {
            self.0.lock().unwrap().remove(0)
        }
    }

    #[tokio::test]
    async fn a_probe_that_failed_is_asked_again_and_an_answer_is_kept() {
        let chosen = Chosen::new(ChecksumMode::Auto);
        let away = Err(StoreError::Unavailable("away".into()));
        let script = Script(vec![away, Ok(false), Ok(true)].into());
        assert!(chosen.get(&script).await.is_err());
        for _ in 0..2 {
            let found = chosen.get(&script).await;
            assert_eq!(found.unwrap(), Some(PartChecksum::Crc32c));
        }
        assert!(script.0.lock().unwrap().is_empty());
    }
}
