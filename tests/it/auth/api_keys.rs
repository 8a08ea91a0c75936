//! API keys.

use std::time::Duration;

use jumar::auth::Refused;
use jumar::catalog::{ApiKeyRecord, Tokens as _};
use jumar::model::{ApiKey, Scope, TokenId};

use super::{Kit, NOW};

fn record(key: &ApiKey) -> ApiKeyRecord {
    ApiKeyRecord {
        id: TokenId::generate(),
        hash: key.hash(),
        name: "nightly".to_owned(),
        scope: Scope::Upload,
        space: None,
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
    }
}

#[tokio::test]
async fn a_key_made_beside_a_running_server_is_taken() {
    let kit = Kit::new().await;
    let (mine, bound) = (ApiKey::generate(), ApiKey::generate());
    assert_eq!(kit.refused(&mine.reveal()).await, Refused::Unknown);
    let (record_of_mine, record_of_bound) = (
        record(&mine),
        ApiKeyRecord {
            scope: Scope::Admin,
            space: Some("photos".parse().unwrap()),
            ..record(&bound)
        },
    );
    for record in [&record_of_mine, &record_of_bound] {
        let added = kit.outsider().add_api_key(record.clone()).await;
        added.expect("added");
    }
    kit.until(&mine.reveal(), Ok(())).await;
    let caller = kit.ask(&mine.reveal()).await.unwrap();
    let id = &record_of_mine.id;
    assert_eq!(caller.subject.unwrap().as_str(), format!("key:{id}"));
    assert_eq!(caller.token.as_ref(), Some(id));
    assert!(!caller.guest && !caller.bound);
    assert_eq!(caller.space.as_str(), "default");
    assert!(caller.scopes.allow(Scope::Upload) && !caller.scopes.allow(Scope::Read));

    kit.until(&bound.reveal(), Ok(())).await;
    let caller = kit.ask(&bound.reveal()).await.unwrap();
    assert!(caller.bound && caller.looks_after(&"photos".parse().unwrap()));
}

#[tokio::test]
async fn a_key_revoked_by_another_process_is_refused() {
    let kit = Kit::new().await;
    let key = ApiKey::generate();
    let record = record(&key);
    let catalog = kit.outsider();
    catalog.add_api_key(record.clone()).await.expect("added");
    kit.until(&key.reveal(), Ok(())).await;
    let revoked = catalog.revoke_token(record.id, NOW, None).await;
    revoked.expect("revoked");
    kit.until(&key.reveal(), Err(Refused::Revoked)).await;
}

#[tokio::test]
async fn a_key_is_good_until_it_expires_and_in_a_space_that_is_known() {
    let kit = Kit::new().await;
    let (key, strange) = (ApiKey::generate(), ApiKey::generate());
    let of_key = ApiKeyRecord {
        expires_at: Some(NOW.after(Duration::from_secs(1))),
        ..record(&key)
    };
    let of_strange = ApiKeyRecord {
        space: Some("elsewhere".parse().unwrap()),
        ..record(&strange)
    };
    for record in [of_key, of_strange] {
        kit.outsider().add_api_key(record).await.expect("added");
    }
    kit.until(&key.reveal(), Ok(())).await;
    kit.clock.advance(Duration::from_secs(1));
    assert_eq!(kit.refused(&key.reveal()).await, Refused::Expired);
    kit.until(&strange.reveal(), Err(Refused::UnknownSpace))
        .await;
}

#[tokio::test]
async fn what_is_no_key_is_malformed() {
    let kit = Kit::new().await;
    let text = ApiKey::generate().reveal();
    for wrong in ["jumar_", &text[..30], &format!("{text}AA")] {
        assert_eq!(kit.refused(wrong).await, Refused::Malformed, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_known_goes_on_when_the_catalog_cannot_be_read() {
    let kit = Kit::new().await;
    let key = ApiKey::generate();
    let catalog = kit.outsider();
    catalog.add_api_key(record(&key)).await.expect("added");
    kit.until(&key.reveal(), Ok(())).await;
    let outsider = rusqlite::Connection::open(kit.folder.path().join("jumar.db")).unwrap();
    outsider
        .execute_batch("ALTER TABLE tokens_version RENAME TO gone")
        .expect("spoilt");
    assert!(catalog.tokens(None).await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    kit.ask(&key.reveal()).await.expect("still taken");
}
