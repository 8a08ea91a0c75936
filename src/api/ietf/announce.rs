//! Interim answers: `104 (Upload Resumption Supported)`, to clients that know what it is.

use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use tokio::sync::watch;

use super::dialect::Dialect;
use super::render;
use crate::api::interim::{Interim, InterimHead};
use crate::model::Offset;

/// How long a request waits for its announcement to go out. A client that does not read has to be served too.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(1);
/// How often a client is told how far its upload got, at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Sends the interim answers of one request.
pub(super) struct Announcer {
    interim: Interim,
    dialect: &'static Dialect,
}

impl Announcer {
    /// `None` if the client named no version that is served here, or its connection has no interim answers.
    pub(super) fn of(parts: &Parts) -> Option<Self> {
        Some(Self {
            dialect: Dialect::named(&parts.headers)?,
            interim: parts.extensions.get::<Interim>().cloned()?,
        })
    }

    /// Sends one, and waits until it has gone out, but not for long.
    pub(super) async fn announce(&self, fields: &HeaderMap) {
        let head = InterimHead::upload_resumption_supported(fields);
        let _ = tokio::time::timeout(ANNOUNCE_WITHIN, self.interim.send(head)).await;
    }

    /// Does some work, and tells on the way how far the upload has got.
    pub(super) async fn follow<T>(
        &self,
        mut progress: watch::Receiver<Offset>,
        work: impl Future<Output = T>,
    ) -> T {
        if !self.dialect.tells_progress {
            return work.await;
        }
        let tell = async {
            loop {
                tokio::time::sleep(PROGRESS_EVERY).await;
                if progress.changed().await.is_err() {
                    break;
                }
                let fields = render::progress(self.dialect, *progress.borrow_and_update());
                let head = InterimHead::upload_resumption_supported(&fields);
                self.interim.send(head).await;
            }
        };
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => done,
            () = tell => work.await,
        }
    }
}
