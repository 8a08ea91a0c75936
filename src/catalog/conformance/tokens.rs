//! API keys, revocations and the link secret.

use super::*;
use crate::catalog::{ApiKeyRecord, Revoked, TokenLists};
use crate::model::token::LinkSecret;
use crate::model::{ApiKey, Scope, TokenId};

/// A key that has all that one can have.
fn key(created_at: i64) -> ApiKeyRecord {
    ApiKeyRecord {
        id: TokenId::generate(),
        hash: ApiKey::generate().hash(),
        name: "the \"nightly\" job ✂".to_owned(),
        scope: Scope::Read,
        space: Some("photos".parse().expect("a name")),
        created_at: Timestamp(created_at),
        expires_at: Some(EXPIRY),
        revoked_at: None,
    }
}

async fn lists(catalog: &Shared) -> TokenLists {
    let lists = catalog.tokens(None).await.expect("read");
    lists.expect("everything is news to whoever knows nothing")
}

async fn add(catalog: &Shared, key: &ApiKeyRecord) {
    catalog.add_api_key(key.clone()).await.expect("added");
}

async fn revoke(catalog: &Shared, id: &TokenId, now: i64, forget_at: Option<i64>) -> Revoked {
    let forget_at = forget_at.map(Timestamp);
    let revoked = catalog.revoke_token(id.clone(), Timestamp(now), forget_at);
    revoked.await.expect("revoked")
}

pub(crate) async fn keys_are_found_as_they_were_added(catalog: Shared) {
    assert_eq!(lists(&catalog).await.api_keys, []);
    let newer = key(20);
    let older = ApiKeyRecord {
        scope: Scope::Admin,
        space: None,
        expires_at: None,
        ..key(10)
    };
    add(&catalog, &newer).await;
    add(&catalog, &older).await;
    assert_eq!(lists(&catalog).await.api_keys, [older, newer]);
}

pub(crate) async fn a_key_is_added_once(catalog: Shared) {
    let first = key(1);
    add(&catalog, &first).await;
    let version = lists(&catalog).await.version;
    let same_hash = ApiKeyRecord {
        hash: first.hash,
        ..key(2)
    };
    let same_id = ApiKeyRecord {
        id: first.id.clone(),
        ..key(2)
    };
    for again in [first.clone(), same_hash, same_id] {
        assert_stale(catalog.add_api_key(again).await);
    }
    let lists = lists(&catalog).await;
    assert_eq!((lists.api_keys, lists.version), (vec![first], version));
}

pub(crate) async fn a_revoked_key_keeps_its_first_time(catalog: Shared) {
    let (mine, other) = (key(1), key(2));
    add(&catalog, &mine).await;
    add(&catalog, &other).await;
    for now in [5, 9] {
        let revoked = revoke(&catalog, &mine.id, now, None).await;
        assert_eq!(revoked, Revoked::ApiKey);
    }
    let lists = lists(&catalog).await;
    assert_eq!(lists.api_keys[0].revoked_at, Some(Timestamp(5)));
    assert_eq!(lists.api_keys[1], other);
    assert_eq!(lists.revoked, []);
}

pub(crate) async fn other_tokens_are_revoked_by_their_ids(catalog: Shared) {
    let id = TokenId::generate();
    for now in [5, 9] {
        let revoked = revoke(&catalog, &id, now, None).await;
        assert_eq!(revoked, Revoked::OtherToken);
        assert_eq!(lists(&catalog).await.revoked, std::slice::from_ref(&id));
    }
}

pub(crate) async fn nothing_is_read_again_that_has_not_changed(catalog: Shared) {
    let mut known = lists(&catalog).await.version;
    let mine = key(1);
    for change in 0..3 {
        let unchanged = catalog.tokens(Some(known)).await.expect("read");
        assert_eq!(unchanged, None);
        match change {
            0 => add(&catalog, &mine).await,
            1 => drop(revoke(&catalog, &mine.id, 5, None).await),
            _ => drop(revoke(&catalog, &TokenId::generate(), 5, None).await),
        }
        let news = catalog.tokens(Some(known)).await.expect("read");
        let version = news.expect("something has changed").version;
        assert!(version > known);
        known = version;
    }
}

pub(crate) async fn revocations_are_forgotten_when_it_is_time(catalog: Shared) {
    let ids: Vec<TokenId> = (0..3).map(|_| TokenId::generate()).collect();
    revoke(&catalog, &ids[0], 1, Some(10)).await;
    // The later time counts, and never is later than any.
    for (id, times) in [(&ids[1], [Some(20), Some(10)]), (&ids[2], [None, Some(10)])] {
        for forget_at in times {
            revoke(&catalog, id, 1, forget_at).await;
        }
    }
    let purge = |now, limit| catalog.purge_records(Timestamp(now), Timestamp(0), limit);
    assert_eq!(purge(9, 9).await.expect("purged"), 0);
    let version = lists(&catalog).await.version;
    assert_eq!(purge(30, 1).await.expect("purged"), 1);
    assert!(lists(&catalog).await.version > version);
    assert_eq!(purge(30, 9).await.expect("purged"), 1);
    assert_eq!(lists(&catalog).await.revoked, ids[2..]);
}

pub(crate) async fn there_is_one_link_secret(catalog: Shared) {
    let first = LinkSecret::generate();
    for offered in [first.clone(), LinkSecret::generate()] {
        let secret = catalog.link_secret(offered).await.expect("kept");
        assert!(secret == first);
    }
}
