//! What the S3 server inside the tests keeps, and its rules: those of AWS.
//!
//! Parts are files in a temporary folder; an object is a list of them, so that finishing a GiB copies nothing.
//! One file, because it is the implementation of one trait over one state.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use jumar::clock::Clock;
use md5::{Digest as _, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::s3_control::Control;

/// Parts but the last have to be this large.
const MIN_PART: u64 = 5 * 1024 * 1024;
/// No part may be larger than this, put or copied.
const MAX_PART: u64 = 5 * 1024 * 1024 * 1024;

/// Cheap to clone; clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    inner: Arc<Inner>,
    control: Control,
}

#[derive(Debug)]
struct Inner {
    bucket: String,
    folder: PathBuf,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<(String, String), Multipart>,
    cors: Vec<CORSRule>,
}

/// A file that goes when nothing has it any more.
#[derive(Debug)]
struct Piece {
    path: PathBuf,
    size: u64,
}

impl Drop for Piece {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(Debug, Clone)]
struct Object {
    pieces: Vec<Arc<Piece>>,
    etag: String,
    /// Of the whole; AWS computes it where no other checksum came.
    crc64: Option<String>,
    about: AboutObject,
    modified: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct AboutObject {
    content_type: Option<String>,
    metadata: Option<HashMap<String, String>>,
    sse: Option<String>,
}

#[derive(Debug)]
struct Multipart {
    about: AboutObject,
    algorithm: Option<String>,
    initiated: Timestamp,
    parts: BTreeMap<i32, Part_>,
}

#[derive(Debug, Clone)]
struct Part_ {
    piece: Arc<Piece>,
    etag: String,
    crc64: String,
    crc32c: String,
}

/// The checksums that came with a body.
#[derive(Default)]
struct Claimed {
    crc64: Option<String>,
    crc32c: Option<String>,
    sha256: Option<String>,
    md5: Option<String>,
}

/// What arrived.
struct Arrived {
    piece: Arc<Piece>,
    md5: [u8; 16],
    crc64: String,
    crc32c: String,
    sha256: Option<String>,
}

impl Claimed {
    /// Whether there is a checksum of the kinds that some stores do not know.
    fn modern(&self) -> bool {
        self.crc32c.is_some() || self.modern_but_crc32c()
    }

    fn modern_but_crc32c(&self) -> bool {
        self.crc64.is_some() || self.sha256.is_some()
    }
}

impl Object {
    fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }
}

impl Backend {
    pub(crate) fn new(folder: &Path, bucket: &str, control: Control) -> Self {
        Self {
            inner: Arc::new(Inner {
                bucket: bucket.to_owned(),
                folder: folder.to_owned(),
                next: AtomicU64::new(1),
                state: Mutex::default(),
            }),
            control,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The bytes of an object.
    pub(crate) fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let object = self.state().objects.get(key).cloned()?;
        let files = object.pieces.iter().map(|piece| std::fs::read(&piece.path));
        let files: Vec<_> = files.map(|file| file.expect("a piece")).collect();
        Some(files.concat())
    }

    /// The media type and the encryption of an object.
    pub(crate) fn about(&self, key: &str) -> Option<(Option<String>, Option<String>)> {
        let object = self.state().objects.get(key).cloned()?;
        Some((object.about.content_type, object.about.sse))
    }

    /// The multipart uploads that are open, by key.
    pub(crate) fn open_uploads(&self) -> Vec<(String, String)> {
        self.state().uploads.keys().cloned().collect()
    }

    /// The rules for browsers.
    pub(crate) fn cors(&self) -> Vec<CORSRule> {
        self.state().cors.clone()
    }

    pub(crate) fn set_cors(&self, rules: Vec<CORSRule>) {
        self.state().cors = rules;
    }

    /// Lets a multipart upload vanish, as some stores do after a week.
    pub(crate) fn lose_uploads(&self) {
        self.state().uploads.clear();
    }

    /// Lets an object vanish.
    pub(crate) fn lose_object(&self, key: &str) {
        self.state().objects.remove(key);
    }

    fn known(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.inner.bucket {
            Ok(())
        } else {
            Err(s3_error!(NoSuchBucket))
        }
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Object> {
        self.known(bucket)?;
        let object = self.state().objects.get(key).cloned();
        object.ok_or_else(|| s3_error!(NoSuchKey))
    }

    async fn receive(
        &self,
        body: Option<StreamingBlob>,
        length: Option<i64>,
        claimed: &Claimed,
    ) -> S3Result<Arrived> {
        let quirks = self.control.quirks();
        if quirks.refuses_checksums && claimed.modern() {
            drain(body).await;
            return Err(s3_error!(NotImplemented, "no such header"));
        }
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.folder.join(number.to_string());
        let mut file = std::fs::File::create(&path).map_err(s3s::S3Error::internal_error)?;
        let mut piece = Piece { path, size: 0 };
        let mut md5 = Md5::new();
        let mut hasher = ChecksumHasher {
            crc64nvme: Some(s3s::crypto::Crc64Nvme::new()),
            crc32c: Some(s3s::crypto::Crc32c::new()),
            sha256: claimed.sha256.as_ref().map(|_| s3s::crypto::Sha256::new()),
            ..ChecksumHasher::default()
        };
        if let Some(mut body) = body {
            while let Some(bytes) = body.next().await {
                let bytes = bytes.map_err(|_| s3_error!(IncompleteBody))?;
                md5.update(&bytes);
                hasher.update(&bytes);
                file.write_all(&bytes)
                    .map_err(s3s::S3Error::internal_error)?;
                piece.size += bytes.len() as u64;
            }
        }
        if length.is_some_and(|length| u64::try_from(length) != Ok(piece.size)) {
            return Err(s3_error!(IncompleteBody));
        }
        let sums = hasher.finalize();
        let arrived = Arrived {
            piece: Arc::new(piece),
            md5: md5.finalize().into(),
            crc64: sums.checksum_crc64nvme.unwrap_or_default(),
            crc32c: sums.checksum_crc32c.unwrap_or_default(),
            sha256: sums.checksum_sha256,
        };
        let md5 = STANDARD.encode(arrived.md5);
        let differs = |claimed: &Option<String>, is: &str| {
            !quirks.ignores_checksums && claimed.as_deref().is_some_and(|claimed| claimed != is)
        };
        if differs(&claimed.crc64, &arrived.crc64)
            || differs(&claimed.crc32c, &arrived.crc32c)
            || differs(
                &claimed.sha256,
                arrived.sha256.as_deref().unwrap_or_default(),
            )
            || differs(&claimed.md5, &md5)
        {
            return Err(s3_error!(BadDigest));
        }
        Ok(arrived)
    }

    fn takes_part(&self, name: &(String, String), claimed: &Claimed) -> S3Result<()> {
        let state = self.state();
        let upload = state.uploads.get(name);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let other = match upload.algorithm.as_deref() {
            Some("CRC64NVME") => {
                let lacks = self.control.quirks().wants_checksums && claimed.crc64.is_none();
                lacks || claimed.crc32c.is_some() || claimed.sha256.is_some()
            }
            // Its whole is made of the parts' checksums, so each has to have one.
            Some(_) => claimed.crc32c.is_none() || claimed.modern_but_crc32c(),
            None => claimed.crc64.is_some() || claimed.crc32c.is_some(),
        };
        if other {
            return Err(s3_error!(InvalidRequest, "the upload has another checksum"));
        }
        Ok(())
    }

    /// Keeps a part, in place of one that was there; its tag.
    fn keep_part(&self, name: &(String, String), number: i32, part: Arrived) -> S3Result<ETag> {
        let etag = hex::encode(part.md5);
        let mut state = self.state();
        let upload = state.uploads.get_mut(name);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let part = Part_ {
            piece: part.piece,
            etag: etag.clone(),
            crc64: part.crc64,
            crc32c: part.crc32c,
        };
        upload.parts.insert(number, part);
        Ok(ETag::Strong(etag))
    }

    fn refuse_existing(&self, state: &State, key: &str, only_new: bool) -> S3Result<()> {
        let looks = !self.control.quirks().ignores_conditions;
        if looks && only_new && state.objects.contains_key(key) {
            return Err(s3_error!(PreconditionFailed));
        }
        Ok(())
    }

    fn check_completion(
        &self,
        upload: &Multipart,
        input: &CompleteMultipartUploadInput,
    ) -> S3Result<Vec<Part_>> {
        let listed = input
            .multipart_upload
            .as_ref()
            .and_then(|list| list.parts.as_deref())
            .filter(|parts| !parts.is_empty())
            .ok_or_else(|| s3_error!(MalformedXML))?;
        let mut parts: Vec<Part_> = Vec::new();
        let mut before = 0;
        for named in listed {
            let number = named.part_number.unwrap_or(0);
            if number <= before {
                return Err(s3_error!(InvalidPartOrder));
            }
            before = number;
            let part = upload
                .parts
                .get(&number)
                .filter(|part| named.e_tag.as_ref().map(ETag::value) == Some(&part.etag))
                .ok_or_else(|| s3_error!(InvalidPart, "part {number}"))?;
            let lacks =
                upload.algorithm.as_deref() == Some("CRC32C") && named.checksum_crc32c.is_none();
            if lacks {
                return Err(s3_error!(InvalidRequest, "part {number} has no checksum"));
            }
            if named
                .checksum_crc64nvme
                .as_ref()
                .is_some_and(|sum| *sum != part.crc64)
                || named
                    .checksum_crc32c
                    .as_ref()
                    .is_some_and(|sum| *sum != part.crc32c)
            {
                return Err(s3_error!(InvalidPart, "part {number} has another checksum"));
            }
            parts.push(part.clone());
        }
        let but_last = &parts[..parts.len() - 1];
        if but_last.iter().any(|part| part.piece.size < MIN_PART) {
            return Err(s3_error!(EntityTooSmall));
        }
        let first = parts[0].piece.size;
        if self.control.quirks().equal_parts && but_last.iter().any(|p| p.piece.size != first) {
            return Err(s3_error!(
                InvalidPart,
                "all parts but the last must be equal"
            ));
        }
        let size: u64 = parts.iter().map(|part| part.piece.size).sum();
        if input
            .mpu_object_size
            .is_some_and(|claimed| u64::try_from(claimed) != Ok(size))
        {
            return Err(s3_error!(InvalidRequest, "another size"));
        }
        if let Some(claimed) = &input.checksum_crc64nvme
            && *claimed != crc64_of_whole(&parts)
        {
            return Err(s3_error!(BadDigest));
        }
        Ok(parts)
    }
}

/// Reads what is not wanted: a client that is answered while it sends may only see that the connection ends.
async fn drain(body: Option<StreamingBlob>) {
    if let Some(mut body) = body {
        while let Some(Ok(_)) = body.next().await {}
    }
}

/// The CRC-64 of parts put together.
fn crc64_of_whole(parts: &[Part_]) -> String {
    let whole = parts.iter().fold(0, |whole, part| {
        let sum = STANDARD.decode(&part.crc64).expect("base64");
        let sum = u64::from_be_bytes(sum.try_into().expect("eight bytes"));
        let algorithm = crc_fast::CrcAlgorithm::Crc64Nvme;
        crc_fast::checksum_combine(algorithm, whole, sum, part.piece.size)
    });
    STANDARD.encode(whole.to_be_bytes())
}

fn now() -> Timestamp {
    Timestamp::from(Clock::system().now().to_utc())
}

/// Whether a condition is that nothing may be there.
fn any(condition: Option<&ETagCondition>) -> bool {
    condition.is_some_and(ETagCondition::is_any)
}

/// Which bytes of a source of this size a copy is made of.
fn copied_range(asked: Option<&str>, size: u64) -> S3Result<std::ops::Range<u64>> {
    let range = match asked {
        None => 0..size,
        Some(_) if size <= MIN_PART => {
            return Err(s3_error!(InvalidRequest, "too small a source for a range"));
        }
        Some(asked) => asked
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
            .and_then(|(first, last)| Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1))
            .filter(|range| range.start < range.end && range.end <= size)
            .ok_or_else(|| s3_error!(InvalidArgument, "no such range of {size} bytes"))?,
    };
    if range.end - range.start > MAX_PART {
        return Err(s3_error!(InvalidRequest, "too large a source"));
    }
    Ok(range)
}

/// The bytes from `start` on, of the pieces one after the other.
fn content(
    pieces: Vec<Arc<Piece>>,
    range: std::ops::Range<u64>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Sync {
    stream::try_unfold(range.start, move |at| {
        let mut start = 0;
        let piece = pieces.iter().find_map(|piece| {
            let begins = start;
            start += piece.size;
            (at < start).then(|| (Arc::clone(piece), begins, start))
        });
        let end = range.end;
        async move {
            let Some((piece, begins, ends)) = piece.filter(|_| at < end) else {
                return Ok(None);
            };
            let wanted = (ends.min(end) - at).min(256 * 1024);
            let mut buffer = vec![0; usize::try_from(wanted).expect("it is small")];
            let mut file = std::fs::File::open(&piece.path)?;
            file.seek(SeekFrom::Start(at - begins))?;
            file.read_exact(&mut buffer)?;
            Ok(Some((Bytes::from(buffer), at + wanted)))
        }
    })
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.known(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let claimed = Claimed {
            crc64: input.checksum_crc64nvme,
            crc32c: input.checksum_crc32c,
            sha256: input.checksum_sha256,
            md5: input.content_md5,
        };
        let arrived = self
            .receive(input.body, input.content_length, &claimed)
            .await?;
        let etag = hex::encode(arrived.md5);
        let mut state = self.state();
        self.refuse_existing(&state, &input.key, any(input.if_none_match.as_ref()))?;
        let object = Object {
            pieces: vec![arrived.piece],
            etag: etag.clone(),
            crc64: (claimed.crc32c.is_none() && claimed.sha256.is_none()).then_some(arrived.crc64),
            about: AboutObject {
                content_type: input.content_type,
                metadata: input.metadata,
                sse: input
                    .server_side_encryption
                    .map(|sse| sse.as_str().to_owned()),
            },
            modified: now(),
        };
        state.objects.insert(input.key, object);
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_crc64nvme: claimed.crc64,
            checksum_crc32c: claimed.crc32c,
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.object(&input.bucket, &input.key)?;
        let size = object.size();
        let range = match &input.range {
            Some(range) => range.check(size)?,
            None => 0..size,
        };
        let content_range = input
            .range
            .map(|_| format!("bytes {}-{}/{size}", range.start, range.end - 1));
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(range.end - range.start).ok(),
            content_range,
            body: Some(StreamingBlob::wrap(content(object.pieces, range))),
            content_type: object.about.content_type,
            metadata: object.about.metadata,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.object(&request.input.bucket, &request.input.key)?;
        let asked = request
            .input
            .checksum_mode
            .as_ref()
            .map(ChecksumMode::as_str);
        let told = asked == Some("ENABLED") && !self.control.quirks().refuses_checksums;
        let crc64 = object.crc64.clone().filter(|_| told);
        Ok(S3Response::new(HeadObjectOutput {
            checksum_type: crc64
                .as_ref()
                .map(|_| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            checksum_crc64nvme: crc64,
            content_length: i64::try_from(object.size()).ok(),
            content_type: object.about.content_type,
            metadata: object.about.metadata,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.known(&request.input.bucket)?;
        self.state().objects.remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let mut object = self.object(bucket, key)?;
        copied_range(None, object.size())?;
        let directive = input.metadata_directive.as_ref();
        if directive.map(MetadataDirective::as_str) == Some("REPLACE") {
            object.about.content_type = input.content_type;
            object.about.metadata = input.metadata;
        }
        object.about.sse = input
            .server_side_encryption
            .map(|sse| sse.as_str().to_owned());
        object.modified = now();
        let etag = object.etag.clone();
        let condition = request.headers.get(http::header::IF_NONE_MATCH);
        let only_new = condition.is_some_and(|value| value == "*");
        let mut state = self.state();
        self.refuse_existing(&state, &input.key, only_new)?;
        state.objects.insert(input.key, object);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(now()),
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let algorithm = input
            .checksum_algorithm
            .map(|name| name.as_str().to_owned());
        if algorithm.is_some() && self.control.quirks().refuses_checksums {
            return Err(s3_error!(NotImplemented, "no such header"));
        }
        let full = input.checksum_type.as_ref().map(ChecksumType::as_str) == Some("FULL_OBJECT");
        if full && algorithm.as_deref() != Some("CRC64NVME")
            || !full && algorithm.as_deref() == Some("CRC64NVME")
        {
            return Err(s3_error!(
                InvalidRequest,
                "this algorithm is not of this type"
            ));
        }
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("upload-{number:08}");
        let upload = Multipart {
            about: AboutObject {
                content_type: input.content_type,
                metadata: input.metadata,
                sse: input
                    .server_side_encryption
                    .map(|sse| sse.as_str().to_owned()),
            },
            algorithm,
            initiated: now(),
            parts: BTreeMap::new(),
        };
        self.state()
            .uploads
            .insert((input.key.clone(), id.clone()), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let name = (input.key, input.upload_id);
        let claimed = Claimed {
            crc64: input.checksum_crc64nvme,
            crc32c: input.checksum_crc32c,
            sha256: input.checksum_sha256,
            md5: input.content_md5,
        };
        if let Err(error) = self.takes_part(&name, &claimed) {
            drain(input.body).await;
            return Err(error);
        }
        let arrived = self
            .receive(input.body, input.content_length, &claimed)
            .await?;
        let etag = self.keep_part(&name, input.part_number, arrived)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(etag),
            checksum_crc64nvme: claimed.crc64,
            checksum_crc32c: claimed.crc32c,
            ..UploadPartOutput::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let name = (input.key, input.upload_id);
        let algorithm = {
            let state = self.state();
            let upload = state.uploads.get(&name);
            let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
            upload.algorithm.clone()
        };
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let source = self.object(bucket, key)?;
        let range = copied_range(input.copy_source_range.as_deref(), source.size())?;
        let copy = StreamingBlob::wrap(content(source.pieces, range));
        let arrived = self.receive(Some(copy), None, &Claimed::default()).await?;
        let of_kind =
            |kind: &str, sum: &String| (algorithm.as_deref() == Some(kind)).then(|| sum.clone());
        let mut result = CopyPartResult {
            checksum_crc64nvme: of_kind("CRC64NVME", &arrived.crc64),
            checksum_crc32c: of_kind("CRC32C", &arrived.crc32c),
            last_modified: Some(now()),
            ..CopyPartResult::default()
        };
        result.e_tag = Some(self.keep_part(&name, input.part_number, arrived)?);
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let name = (input.key.clone(), input.upload_id.clone());
        let mut state = self.state();
        let upload = state.uploads.get(&name);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let parts = self.check_completion(upload, &input)?;
        self.refuse_existing(&state, &input.key, any(input.if_none_match.as_ref()))?;
        let mut md5 = Md5::new();
        for part in &parts {
            md5.update(hex::decode(&part.etag).expect("our own tag"));
        }
        let etag = format!("{}-{}", hex::encode(md5.finalize()), parts.len());
        let upload = state.uploads.remove(&name).expect("it was there");
        let other = upload.algorithm.is_some_and(|name| name != "CRC64NVME");
        let object = Object {
            crc64: (!other).then(|| crc64_of_whole(&parts)),
            pieces: parts.into_iter().map(|part| part.piece).collect(),
            etag: etag.clone(),
            about: upload.about,
            modified: now(),
        };
        state.objects.insert(input.key.clone(), object);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        match self.state().uploads.remove(&(input.key, input.upload_id)) {
            Some(_) => Ok(S3Response::new(AbortMultipartUploadOutput::default())),
            None => Err(s3_error!(NoSuchUpload)),
        }
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let quirks = self.control.quirks();
        let prefix = input.prefix.clone().unwrap_or_default();
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let id_marker = input.upload_id_marker.clone();
        let page = usize::try_from(input.max_uploads.unwrap_or(1_000)).unwrap_or(0);
        let page = page.min(quirks.page.unwrap_or(1_000));
        let state = self.state();
        let behind = |key: &String, id: &String| match key.cmp(&key_marker) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => id_marker.as_ref().is_some_and(|marker| id > marker),
            std::cmp::Ordering::Less => false,
        };
        let mut all = state
            .uploads
            .iter()
            .filter(|((key, id), _)| key.starts_with(&prefix) && behind(key, id))
            .filter(|_| !quirks.stale_lists);
        let uploads: Vec<MultipartUpload> = all
            .by_ref()
            .take(page)
            .map(|((key, id), upload)| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.initiated.clone()),
                ..MultipartUpload::default()
            })
            .collect();
        let more = all.next().is_some();
        let last = uploads.last().filter(|_| more);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(more),
            next_key_marker: last.and_then(|last| last.key.clone()),
            next_upload_id_marker: last.and_then(|last| last.upload_id.clone()),
            prefix: input.prefix,
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        self.known(&input.bucket)?;
        let state = self.state();
        let upload = state
            .uploads
            .get(&(input.key.clone(), input.upload_id.clone()));
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let quirks = self.control.quirks();
        let page = usize::try_from(input.max_parts.unwrap_or(1_000)).unwrap_or(0);
        let page = page.min(quirks.page.unwrap_or(1_000));
        let marker = input.part_number_marker.unwrap_or(0);
        let mut all = upload
            .parts
            .iter()
            .filter(|(number, _)| !quirks.stale_lists && **number > marker);
        let parts: Vec<Part> = all
            .by_ref()
            .take(page)
            .map(|(number, part)| Part {
                part_number: Some(*number),
                e_tag: Some(ETag::Strong(part.etag.clone())),
                size: i64::try_from(part.piece.size).ok(),
                ..Part::default()
            })
            .collect();
        let more = all.next().is_some();
        let last = parts.last().filter(|_| more);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            next_part_number_marker: last.and_then(|last| last.part_number),
            parts: Some(parts),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(more),
            ..ListPartsOutput::default()
        }))
    }

    async fn get_bucket_cors(
        &self,
        request: S3Request<GetBucketCorsInput>,
    ) -> S3Result<S3Response<GetBucketCorsOutput>> {
        self.known(&request.input.bucket)?;
        let rules = self.cors();
        if rules.is_empty() {
            return Err(s3_error!(NoSuchCORSConfiguration));
        }
        Ok(S3Response::new(GetBucketCorsOutput {
            cors_rules: Some(rules),
        }))
    }

    async fn put_bucket_cors(
        &self,
        request: S3Request<PutBucketCorsInput>,
    ) -> S3Result<S3Response<PutBucketCorsOutput>> {
        self.known(&request.input.bucket)?;
        self.set_cors(request.input.cors_configuration.cors_rules);
        Ok(S3Response::new(PutBucketCorsOutput::default()))
    }
}
