//! Links to content that are signed and expire: whoever has one may read one upload's object with nothing else, as in `<img>`.

use std::fmt;
use std::time::Duration;

use crate::auth::Links;
use crate::clock::Clock;
use crate::model::{Timestamp, UploadId};

/// Makes links to content, and knows its own.
#[derive(Clone)]
pub struct ContentLinks {
    /// What signs them.
    pub links: Links,
    /// What they begin with: the native protocol's base path, with scheme and host if those are known.
    pub base: String,
    /// How long one is good for at least; at most twice as long.
    pub ttl: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl ContentLinks {
    /// Where the content of a completed upload can be read for a while.
    #[must_use]
    pub fn to(&self, id: UploadId) -> String {
        let signed = self.links.sign(id, self.expires_at());
        format!("{}/{id}/content?{signed}", self.base)
    }

    /// Whether a query is that of a link to this upload that is still good.
    #[must_use]
    pub fn open(&self, id: UploadId, query: Option<&str>) -> bool {
        query.is_some_and(|query| self.links.check(id, query, self.clock.now()))
    }

    /// The same for all answers of a while: a question that is repeated has the same answer.
    fn expires_at(&self) -> Timestamp {
        let ttl = i64::try_from(self.ttl.as_millis())
            .unwrap_or(i64::MAX)
            .max(1);
        let begun = self.clock.now().0.div_euclid(ttl).saturating_mul(ttl);
        Timestamp(begun.saturating_add(ttl).saturating_add(ttl))
    }
}

impl fmt::Debug for ContentLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentLinks(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::LinkSecret;

    #[test]
    fn a_link_is_good_for_its_time_and_stays_the_same_for_a_while() {
        let clock = Clock::manual(Timestamp(1_000_000_000));
        let links = ContentLinks {
            links: Links::with(LinkSecret([7; 32])),
            base: "/v1/uploads".to_owned(),
            ttl: Duration::from_secs(100),
            clock: clock.clone(),
        };
        let (id, other) = (UploadId::from_bytes([1; 16]), UploadId::from_bytes([2; 16]));
        let link = links.to(id);
        let (path, query) = link.split_once('?').expect("a query");
        assert_eq!(path, format!("/v1/uploads/{id}/content"));
        assert!(links.open(id, Some(query)));
        assert!(!links.open(other, Some(query)) && !links.open(id, None));
        clock.advance(Duration::from_secs(99));
        assert_eq!(links.to(id), link);
        clock.advance(Duration::from_secs(1));
        assert_ne!(links.to(id), link);
        assert!(links.open(id, Some(query)), "at least its time");
        clock.advance(Duration::from_secs(100));
        assert!(!links.open(id, Some(query)));
    }
}
