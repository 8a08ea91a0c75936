//! An application's own tokens, and its keys.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use jumar::auth::{AuthError, JwtAlgorithm, JwtSettings, KeySource, Refused};
use jumar::catalog::Tokens as _;
use jumar::model::{Caller, Length, Scope};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Kit, NOW};
use crate::support::tokens::{ISSUER, KeysServer, Signer, jwks, jwt_claims, with};

fn settings(keys: KeySource) -> JwtSettings {
    JwtSettings {
        issuer: ISSUER.to_owned(),
        audience: "jumar".to_owned(),
        algorithms: vec![
            JwtAlgorithm::Rs256,
            JwtAlgorithm::Ps256,
            JwtAlgorithm::Es256,
            JwtAlgorithm::Es384,
            JwtAlgorithm::EdDsa,
        ],
        keys,
        refresh: Duration::from_hours(1),
        min_refresh: Duration::from_hours(1),
        fetch_timeout: Duration::from_secs(5),
        subject_claim: "sub".to_owned(),
        space_claim: None,
        scope_claim: None,
        max_size_claim: None,
    }
}

async fn at(url: &str, change: impl FnOnce(&mut JwtSettings)) -> Kit {
    let mut jwt = settings(KeySource::Url(url.to_owned()));
    change(&mut jwt);
    Kit::with(|settings| settings.jwt = Some(jwt)).await
}

/// One whose application has these keys in a file.
async fn with_keys(text: &str, change: impl FnOnce(&mut JwtSettings)) -> Kit {
    let folder = TempDir::new().unwrap();
    let mut jwt = settings(KeySource::File(Kit::file(&folder, "keys", text)));
    change(&mut jwt);
    Kit::with(|settings| settings.jwt = Some(jwt)).await
}

async fn mapped(change: impl FnOnce(&mut JwtSettings), claims: Value) -> Result<Caller, Refused> {
    let signer = Signer::ed25519();
    let kit = with_keys(&jwks(&[signer.jwk()]), change).await;
    let token = signer.sign(&with(jwt_claims(NOW), &claims));
    kit.ask(&token).await
}

#[tokio::test]
async fn every_algorithm_verifies_its_own() {
    let signers = [
        Signer::rsa(Algorithm::RS256).named("r"),
        Signer::rsa(Algorithm::PS256).named("s"),
        Signer::p256().named("p"),
        Signer::p384().named("q"),
        Signer::ed25519().named("e"),
    ];
    let keys: Vec<Value> = signers.iter().map(Signer::jwk).collect();
    let kit = with_keys(&jwks(&keys), |_| {}).await;
    for signer in &signers {
        let algorithm = signer.algorithm;
        let answer = kit.ask(&signer.sign(&jwt_claims(NOW))).await;
        assert_eq!(answer.err(), None, "{algorithm:?}");
        let other = signers.iter().find(|other| other.id != signer.id).unwrap();
        let misnamed = signer.clone().named(other.id.as_deref().unwrap());
        let answer = kit.refused(&misnamed.sign(&jwt_claims(NOW))).await;
        assert_eq!(answer, Refused::UnknownKeyId, "{algorithm:?}");
    }
    let forged = Signer::other_ed25519().named("e").sign(&jwt_claims(NOW));
    assert_eq!(kit.refused(&forged).await, Refused::BadSignature);
    let secret = Signer::secret(signers[4].jwk()["x"].as_str().unwrap().as_bytes()).named("e");
    let answer = kit.refused(&secret.sign(&jwt_claims(NOW))).await;
    assert_eq!(answer, Refused::WrongAlgorithm);
}

#[tokio::test]
async fn an_algorithm_that_is_not_configured_is_refused() {
    let signer = Signer::rsa(Algorithm::RS256);
    let change = |jwt: &mut JwtSettings| jwt.algorithms = vec![JwtAlgorithm::EdDsa];
    let kit = with_keys(&jwks(&[signer.jwk()]), change).await;
    let answer = kit.refused(&signer.sign(&jwt_claims(NOW))).await;
    assert_eq!(answer, Refused::WrongAlgorithm);
}

#[tokio::test]
async fn a_public_key_in_pem_is_a_set_of_one() {
    for (pem, signer) in [
        (
            include_str!("../../support/keys/rsa.pub.pem"),
            Signer::rsa(Algorithm::PS256),
        ),
        (
            include_str!("../../support/keys/p256.pub.pem"),
            Signer::p256(),
        ),
        (
            include_str!("../../support/keys/p384.pub.pem"),
            Signer::p384(),
        ),
        (
            include_str!("../../support/keys/ed25519.pub.pem"),
            Signer::ed25519().named("any"),
        ),
    ] {
        let kit = with_keys(pem, |_| {}).await;
        let answer = kit.ask(&signer.sign(&jwt_claims(NOW))).await;
        assert_eq!(answer.err(), None, "{:?}", signer.algorithm);
    }
}

#[tokio::test]
async fn keys_for_something_else_are_passed_over() {
    let good = Signer::ed25519().named("good");
    let encryption = with(good.jwk(), &json!({"kid": "enc", "use": "enc"}));
    let other = with(good.jwk(), &json!({"kid": "alg", "alg": "ES256"}));
    let symmetric = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "oct"});
    let strange = json!({"kty": "lattice"});
    let set = jwks(&[encryption, other, symmetric, strange, good.jwk()]);
    let kit = with_keys(&set, |_| {}).await;
    kit.ask(&good.sign(&jwt_claims(NOW))).await.expect("good");
    for name in ["enc", "alg", "oct"] {
        let token = good.clone().named(name).sign(&jwt_claims(NOW));
        assert_eq!(kit.refused(&token).await, Refused::UnknownKeyId, "{name}");
    }
    let unnamed = Signer { id: None, ..good };
    kit.ask(&unnamed.sign(&jwt_claims(NOW)))
        .await
        .expect("the only one");
}

#[tokio::test]
async fn a_token_without_a_key_id_means_the_only_key() {
    let keys = [
        Signer::ed25519().named("a").jwk(),
        Signer::other_ed25519().named("b").jwk(),
    ];
    let kit = with_keys(&jwks(&keys), |_| {}).await;
    let token = Signer::ed25519().sign(&jwt_claims(NOW));
    assert_eq!(kit.refused(&token).await, Refused::UnknownKeyId);
}

#[tokio::test]
async fn claims_are_mapped_as_configured() {
    let caller = mapped(|_| {}, json!({"jti": "t-1"})).await.unwrap();
    assert_eq!(caller.subject.unwrap().as_str(), "alice");
    assert_eq!(caller.token.unwrap().as_str(), "t-1");
    assert_eq!(caller.space.as_str(), "default");
    assert!(caller.guest && caller.bound);
    assert!(caller.scopes.allow(Scope::Upload) && !caller.scopes.allow(Scope::Read));

    let all = |jwt: &mut JwtSettings| {
        jwt.subject_claim = "email".to_owned();
        jwt.space_claim = Some("https://id.example/space".to_owned());
        jwt.scope_claim = Some("scope".to_owned());
        jwt.max_size_claim = Some("quota".to_owned());
    };
    let claims = json!({
        "email": "a@id.example", "https://id.example/space": "photos", "scope": "openid read", "quota": 9,
    });
    let caller = mapped(all, claims.clone()).await.unwrap();
    assert_eq!(caller.subject.unwrap().as_str(), "a@id.example");
    assert_eq!(caller.token.unwrap().as_str(), "sub:a@id.example");
    assert_eq!(caller.space.as_str(), "photos");
    assert!(caller.scopes.allow(Scope::Read) && !caller.scopes.allow(Scope::Upload));
    assert_eq!(caller.grant.max_size, Some(Length(9)));

    let missing = |claim: &str| Err(Refused::MissingClaim(claim.to_owned()));
    for claim in ["email", "https://id.example/space"] {
        let without = with(claims.clone(), &json!({ claim: null }));
        assert_eq!(mapped(all, without).await, missing(claim));
    }
    let without = with(claims, &json!({"scope": null, "quota": null}));
    let caller = mapped(all, without).await.unwrap();
    assert!(!caller.scopes.allow(Scope::Upload) && !caller.scopes.allow(Scope::Read));
    assert_eq!(caller.grant.max_size, None);
}

#[tokio::test]
async fn what_a_token_claims_is_held_against_the_configuration() {
    let later = json!({"nbf": NOW.0 / 1000 + 120});
    for (claims, expected) in [
        (json!({"aud": "other"}), Refused::WrongAudience),
        (json!({"exp": 1}), Refused::Expired),
        (later, Refused::NotYetValid),
        (
            json!({"exp": null}),
            Refused::MissingClaim("exp".to_owned()),
        ),
        (
            json!({"sub": "key:1"}),
            Refused::MalformedClaim("sub".to_owned()),
        ),
        (
            json!({"iss": "https://else.example"}),
            Refused::UnknownIssuer,
        ),
        // Which verifier it is, its issuer says: this one is signed with the other one's key.
        (json!({"iss": "jumar"}), Refused::WrongAlgorithm),
    ] {
        let answer = mapped(|_| {}, claims.clone()).await;
        assert_eq!(answer.err(), Some(expected), "{claims}");
    }
    let long = "x".repeat(255);
    let caller = mapped(|_| {}, json!({ "sub": long })).await.unwrap();
    assert_eq!(caller.token.unwrap().as_str().len(), 68);
}

#[tokio::test]
async fn all_tokens_of_a_subject_can_be_revoked() {
    let signer = Signer::ed25519();
    let kit = with_keys(&jwks(&[signer.jwk()]), |_| {}).await;
    let token = signer.sign(&jwt_claims(NOW));
    kit.ask(&token).await.expect("good");
    let id = "sub:alice".parse().unwrap();
    let revoked = kit.outsider().revoke_token(id, NOW, None).await;
    revoked.expect("revoked");
    kit.until(&token, Err(Refused::Revoked)).await;
}

#[tokio::test]
async fn rotated_keys_are_found_and_those_that_went_are_refused() {
    let (old, new) = (Signer::ed25519().named("old"), Signer::p256().named("new"));
    let server = KeysServer::start(Some(jwks(&[old.jwk()]))).await;
    let kit = at(&server.url, |jwt| jwt.min_refresh = Duration::ZERO).await;
    let of_old = old.sign(&jwt_claims(NOW));
    kit.ask(&of_old).await.expect("good");
    server.set(Some(jwks(&[new.jwk()])));
    kit.ask(&of_old).await.expect("nobody has looked yet");
    kit.ask(&new.sign(&jwt_claims(NOW)))
        .await
        .expect("looked for");
    assert_eq!(kit.refused(&of_old).await, Refused::UnknownKeyId);
}

#[tokio::test]
async fn keys_are_read_again_by_the_clock() {
    let (old, new) = (Signer::ed25519().named("old"), Signer::p256().named("new"));
    let server = KeysServer::start(Some(jwks(&[old.jwk()]))).await;
    let kit = at(&server.url, |jwt| jwt.refresh = Duration::from_millis(20)).await;
    let of_old = old.sign(&jwt_claims(NOW));
    kit.ask(&of_old).await.expect("good");
    server.set(Some(jwks(&[new.jwk()])));
    kit.until(&of_old, Err(Refused::UnknownKeyId)).await;
    kit.ask(&new.sign(&jwt_claims(NOW))).await.expect("good");
}

#[tokio::test]
async fn unknown_key_ids_cause_one_fetch_in_a_while() {
    let signer = Signer::ed25519().named("good");
    let server = KeysServer::start(Some(jwks(&[signer.jwk()]))).await;
    let kit = at(&server.url, |_| {}).await;
    assert_eq!(server.asked(), 1);
    let tokens: Vec<String> = (0..20)
        .map(|n| {
            let strange = signer.clone().named(&format!("strange-{n}"));
            strange.sign(&jwt_claims(NOW))
        })
        .collect();
    let all = tokens.iter().map(|token| kit.refused(token));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer, Refused::UnknownKeyId);
    }
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn keys_go_on_when_their_url_is_away() {
    let signer = Signer::ed25519().named("good");
    let server = KeysServer::start(Some(jwks(&[signer.jwk()]))).await;
    let kit = at(&server.url, |jwt| {
        jwt.refresh = Duration::from_millis(10);
        jwt.min_refresh = Duration::ZERO;
    })
    .await;
    let token = signer.sign(&jwt_claims(NOW));
    let before = server.asked();
    for broken in [
        None,
        Some("<html>".to_owned()),
        Some(jwks(&[])),
        Some("x".repeat(2 << 20)),
    ] {
        server.set(broken);
        let strange = signer.clone().named("strange").sign(&jwt_claims(NOW));
        assert_eq!(kit.refused(&strange).await, Refused::UnknownKeyId);
        kit.ask(&token).await.expect("still good");
    }
    assert!(server.asked() >= before + 4);
}

#[tokio::test]
async fn a_url_that_is_away_at_the_start_is_tried_again() {
    let signer = Signer::ed25519();
    let server = KeysServer::start(None).await;
    let kit = at(&server.url, |jwt| {
        jwt.min_refresh = Duration::from_millis(20);
    })
    .await;
    let token = signer.sign(&jwt_claims(NOW));
    assert_eq!(kit.refused(&token).await, Refused::KeysAway);
    server.set(Some(jwks(&[signer.jwk()])));
    kit.until(&token, Ok(())).await;
}

#[tokio::test]
async fn a_file_without_keys_is_an_error_at_the_start() {
    let folder = TempDir::new().unwrap();
    for text in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
    ] {
        let source = KeySource::File(Kit::file(&folder, "keys", text));
        let error = start_error(source).await;
        assert!(matches!(error, AuthError::Keys { .. }), "{text}: {error}");
    }
    start_error(KeySource::File(folder.path().join("none"))).await;
}

async fn start_error(keys: KeySource) -> AuthError {
    let started = Kit::try_with(|all| all.jwt = Some(settings(keys))).await;
    started.err().expect("a file without keys")
}
