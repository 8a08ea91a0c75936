//! Reading an object back for its digests, where its bytes were not hashed in order on their way.
//!
//! What was put together from other uploads is compared with what is known of each of them, too.

use std::collections::VecDeque;

use futures_util::StreamExt as _;

use super::hasher::Hasher;
use super::live::Live;
use super::settle::blocking;
use super::{Inner, Result};
use crate::catalog::Source;
use crate::model::digest::Digests;
use crate::model::upload::{Role, Verified};
use crate::model::{Length, StoreKey, Upload};
use crate::store::{self, StoreError};

impl Inner {
    /// The digests of an object that was not hashed on its way: the store's own, if that will do, else what is read.
    pub(super) async fn find_digests(
        &self,
        live: &Live,
        upload: &Upload,
        length: Length,
    ) -> Result<(Digests, Verified)> {
        if let Some(sum) = self.trusted_checksum(live, upload).await? {
            return Ok((sum, Verified::StoreChecksum));
        }
        let read = self.read_back(live, upload, length).await?;
        Ok((read, Verified::Readback))
    }

    /// Reads the whole object for its digests. One that is not there, or not what was sent, is tried again, or lost.
    pub(super) async fn read_back(
        &self,
        live: &Live,
        upload: &Upload,
        length: Length,
    ) -> Result<Digests> {
        let seams = if upload.role == Role::Final {
            let sources = self.catalog.sources(upload.id).await;
            Seams::of(&sources.map_err(|error| live.catalog_failed(error))?)
        } else {
            Seams::default()
        };
        let declared = &upload.declared.digests;
        match self
            .hash_object(&upload.store_key, declared, length, seams)
            .await
        {
            Err(error @ (StoreError::NotFound | StoreError::Changed(_))) => {
                self.missing(live, error).await
            }
            hashed => Ok(hashed?),
        }
    }

    pub(super) async fn hash_object(
        &self,
        key: &StoreKey,
        declared: &Digests,
        length: Length,
        mut seams: Seams,
    ) -> store::Result<Digests> {
        let mut stream = self.store.read(key, None).await?;
        let mut hasher = Hasher::of_whole(declared);
        let mut read = 0;
        while let Some(bytes) = stream.next().await.transpose()? {
            read += bytes.len() as u64;
            (hasher, seams) = blocking(move || {
                hasher.update(&bytes);
                seams.pass(&bytes)?;
                Ok((hasher, seams))
            })
            .await?;
        }
        if read != length.get() {
            let detail = format!("{read} bytes were read back of {length}");
            return Err(StoreError::Changed(detail.into()));
        }
        Ok(hasher.finish())
    }
}

/// The stretches that an object was put together from, each to be compared with the digests that its bytes were taken with.
#[derive(Default)]
pub(super) struct Seams(VecDeque<Seam>);

struct Seam {
    left: u64,
    hasher: Hasher,
    expected: Digests,
}

impl Seams {
    fn of(sources: &[Source]) -> Self {
        let seam = |source: &Source| Seam {
            left: source.size.get(),
            hasher: Hasher::of_body(&source.digests.clone().into()),
            expected: source.digests.clone(),
        };
        Self(sources.iter().map(seam).collect())
    }

    /// Takes the next bytes of the object. `Changed` if those of a source are not what they were.
    fn pass(&mut self, mut bytes: &[u8]) -> store::Result<()> {
        while let Some(seam) = self.0.front_mut()
            && !(bytes.is_empty() && seam.left > 0)
        {
            let len = usize::try_from(seam.left).unwrap_or(usize::MAX);
            let (mine, rest) = bytes.split_at(len.min(bytes.len()));
            seam.hasher.update(mine);
            seam.left -= mine.len() as u64;
            bytes = rest;
            if seam.left == 0
                && let Some(Seam {
                    hasher, expected, ..
                }) = self.0.pop_front()
                && expected.first_conflict(&hasher.finish()).is_some()
            {
                let detail = "what was put together is not what its parts were";
                return Err(StoreError::Changed(detail.into()));
            }
        }
        Ok(())
    }
}
