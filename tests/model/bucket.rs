//! A bucket in memory, as strict as a real one: parts have a smallest size, finishing names every part by its tag, a failed
//! finish destroys nothing, what is gone is not found. Its listings can lag behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jumar::clock::Clock;
use jumar::model::upload::StoreUploadId;
use jumar::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, Timestamp, UploadId};
use jumar::store::check::Finding;
use jumar::store::{
    About, ByteStream, Found, FoundMultipart, MadeOf, Parts, Payload, Put, Result, Shape, Store,
    StoreError, Stored,
};
use sha2::{Digest as _, Sha256};

struct Object {
    bytes: Bytes,
    etag: String,
    upload: UploadId,
}

struct Multipart {
    upload: UploadId,
    initiated: Timestamp,
    parts: BTreeMap<u32, (String, Bytes)>,
}

#[derive(Default)]
struct Inside {
    objects: BTreeMap<StoreKey, Object>,
    multipart: BTreeMap<(StoreKey, String), Multipart>,
    begun: u64,
    /// What listings show while they lag behind.
    stale: Option<Vec<FoundMultipart>>,
}

/// The bucket. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Bucket {
    inside: Arc<Mutex<Inside>>,
    min_part_bytes: u64,
    clock: Clock,
}

impl Bucket {
    pub(crate) fn new(min_part_bytes: u64, clock: Clock) -> Self {
        Self {
            inside: Arc::default(),
            min_part_bytes,
            clock,
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listings stay as they are now, or tell the truth again.
    pub(crate) fn set_stale(&self, stale: bool) {
        let mut inside = self.inside();
        inside.stale = stale.then(|| inside.list());
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        let inside = self.inside();
        let all = inside.objects.iter();
        all.map(|(key, object)| (key.to_string(), object.bytes.clone()))
            .collect()
    }

    pub(crate) fn open_uploads(&self) -> Vec<String> {
        let inside = self.inside();
        inside
            .multipart
            .keys()
            .map(|(key, id)| format!("{key} {id}"))
            .collect()
    }
}

impl Inside {
    fn list(&self) -> Vec<FoundMultipart> {
        let all = self.multipart.iter();
        all.map(|((key, id), multipart)| FoundMultipart {
            key: key.clone(),
            id: StoreUploadId(id.clone()),
            initiated: Some(multipart.initiated),
        })
        .collect()
    }

    fn listed(&self) -> Vec<FoundMultipart> {
        self.stale.clone().unwrap_or_else(|| self.list())
    }

    fn open(&mut self, key: &StoreKey, id: &StoreUploadId) -> Result<&mut Multipart> {
        let name = (key.clone(), id.0.clone());
        self.multipart.get_mut(&name).ok_or(StoreError::NotFound)
    }
}

fn etag_of(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

async fn all_of(payload: &Payload) -> Result<Bytes> {
    let pieces: Vec<Bytes> = payload.stream().try_collect().await?;
    Ok(pieces.concat().into())
}

#[async_trait]
impl Store for Bucket {
    fn shape(&self) -> Shape<'_> {
        Shape::Parts(self)
    }

    async fn head(&self, key: &StoreKey) -> Result<Option<Found>> {
        Ok(self.inside().objects.get(key).map(|object| Found {
            size: Length(object.bytes.len() as u64),
            etag: object.etag.clone(),
            upload: Some(object.upload),
        }))
    }

    async fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream> {
        let inside = self.inside();
        let bytes = &inside.objects.get(key).ok_or(StoreError::NotFound)?.bytes;
        let bytes = match range {
            None => bytes.clone(),
            Some(range) if range.end() <= bytes.len() as u64 => {
                bytes.slice(at(range.start())..at(range.end()))
            }
            Some(_) => return Err(StoreError::Refused("there are no such bytes".into())),
        };
        let pieces: Vec<_> = bytes
            .chunks(1 << 16)
            .map(|piece| Ok(bytes.slice_ref(piece)))
            .collect();
        Ok(stream::iter(pieces).boxed())
    }

    async fn delete(&self, key: &StoreKey) -> Result<()> {
        self.inside().objects.remove(key);
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("it is in memory")
}

#[async_trait]
impl Parts for Bucket {
    fn equal_parts(&self) -> bool {
        false
    }

    fn min_part_bytes(&self) -> u64 {
        self.min_part_bytes
    }

    async fn put(&self, key: &StoreKey, payload: Payload, about: &About) -> Result<Put> {
        let bytes = all_of(&payload).await?;
        let etag = etag_of(&bytes);
        let object = Object {
            bytes,
            etag: etag.clone(),
            upload: about.upload,
        };
        self.inside().objects.insert(key.clone(), object);
        Ok(Put {
            etag,
            checksum: None,
        })
    }

    async fn begin(&self, key: &StoreKey, about: &About, _: MadeOf) -> Result<StoreUploadId> {
        let initiated = self.clock.now();
        let mut inside = self.inside();
        inside.begun += 1;
        let id = format!("multipart-{}", inside.begun);
        let multipart = Multipart {
            upload: about.upload,
            initiated,
            parts: BTreeMap::new(),
        };
        inside
            .multipart
            .insert((key.clone(), id.clone()), multipart);
        Ok(StoreUploadId(id))
    }

    async fn put_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        payload: Payload,
        _: MadeOf,
    ) -> Result<PartReceipt> {
        let bytes = all_of(&payload).await?;
        assert_eq!(bytes.len() as u64, range.len(), "a part is what it says");
        let etag = etag_of(&bytes);
        let mut inside = self.inside();
        let multipart = inside.open(key, upload)?;
        multipart.parts.insert(number.0, (etag.clone(), bytes));
        Ok(PartReceipt {
            number,
            range,
            etag,
            checksum: None,
        })
    }

    async fn copy_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        source: &StoreKey,
        source_range: Option<ByteRange>,
    ) -> Result<PartReceipt> {
        let mut inside = self.inside();
        inside.open(key, upload)?;
        let whole = &inside
            .objects
            .get(source)
            .ok_or(StoreError::NotFound)?
            .bytes;
        let bytes = match source_range {
            None => whole.clone(),
            Some(part) if part.end() <= whole.len() as u64 => {
                whole.slice(at(part.start())..at(part.end()))
            }
            Some(_) => return Err(StoreError::Refused("there are no such bytes".into())),
        };
        let etag = etag_of(&bytes);
        inside
            .open(key, upload)?
            .parts
            .insert(number.0, (etag.clone(), bytes));
        Ok(PartReceipt {
            number,
            range,
            etag,
            checksum: None,
        })
    }

    async fn copy(
        &self,
        source: &StoreKey,
        size: Length,
        key: &StoreKey,
        about: &About,
    ) -> Result<Stored> {
        let mut inside = self.inside();
        let from = inside.objects.get(source).ok_or(StoreError::NotFound)?;
        let (bytes, etag) = (from.bytes.clone(), from.etag.clone());
        if bytes.len() as u64 != size.get() {
            return Err(StoreError::Changed("it has another size".into()));
        }
        if inside
            .objects
            .get(key)
            .is_some_and(|there| there.upload != about.upload)
        {
            return Err(StoreError::Taken);
        }
        let object = Object {
            bytes,
            etag: etag.clone(),
            upload: about.upload,
        };
        inside.objects.insert(key.clone(), object);
        Ok(Stored {
            etag,
            verified: false,
        })
    }

    /// What this store can do is known.
    async fn remove_probes(&self, _before: Timestamp) -> Result<u64> {
        Ok(0)
    }

    async fn finish(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
    ) -> Result<Stored> {
        let changed = |why: String| Err(StoreError::Changed(why.into()));
        let mut inside = self.inside();
        let multipart = inside.open(key, upload)?;
        let mut bytes = Vec::new();
        let mut before = 0;
        for (place, receipt) in parts.iter().enumerate() {
            let number = receipt.number.0;
            let Some((_, part)) =
                (multipart.parts.get(&number)).filter(|(etag, _)| *etag == receipt.etag)
            else {
                return changed(format!("part {number} is not the one that is there"));
            };
            if number <= before {
                return changed(format!("part {number} comes after part {before}"));
            }
            if place + 1 < parts.len() && (part.len() as u64) < self.min_part_bytes {
                return changed(format!("part {number} is too small"));
            }
            before = number;
            bytes.extend_from_slice(part);
        }
        if parts.is_empty() || bytes.len() as u64 != size.get() {
            return changed(format!("{} bytes are not {size}", bytes.len()));
        }
        let object = Object {
            etag: format!("{}-{}", etag_of(&bytes), parts.len()),
            bytes: bytes.into(),
            upload: multipart.upload,
        };
        let etag = object.etag.clone();
        inside.multipart.remove(&(key.clone(), upload.0.clone()));
        inside.objects.insert(key.clone(), object);
        Ok(Stored {
            etag,
            verified: false,
        })
    }

    async fn abort(&self, key: &StoreKey, upload: &StoreUploadId) -> Result<()> {
        self.inside()
            .multipart
            .remove(&(key.clone(), upload.0.clone()));
        Ok(())
    }

    async fn multipart_of(&self, key: &StoreKey) -> Result<Vec<FoundMultipart>> {
        let mut all = self.inside().listed();
        all.retain(|found| found.key == *key);
        Ok(all)
    }

    async fn multipart_uploads(
        &self,
        after: Option<&FoundMultipart>,
        limit: u32,
    ) -> Result<Vec<FoundMultipart>> {
        let all = self.inside().listed().into_iter();
        let place = |found: &FoundMultipart| (found.key.clone(), found.id.0.clone());
        Ok(all
            .filter(|found| after.is_none_or(|after| place(found) > place(after)))
            .take(limit as usize)
            .collect())
    }
}

#[tokio::test]
async fn it_keeps_the_contract_of_stores() {
    let bucket = Bucket::new(jumar::model::plan::MIN_PART_BYTES, Clock::system());
    jumar::store::conformance::suite(&bucket).await;
    assert!(bucket.objects().is_empty() && bucket.open_uploads().is_empty());
}
