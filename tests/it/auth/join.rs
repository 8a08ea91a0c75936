//! Join tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jumar::auth::{Invitation, JoinKey, Refused, mint};
use jumar::catalog::Tokens as _;
use jumar::model::{Length, Scope};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Kit, LEEWAY, NOW, join_settings};
use crate::support::tokens::{ED25519_PUBLIC, SECRET, Signer, join_claims, join_token, secs, with};

fn missing(claim: &str) -> Refused {
    Refused::MissingClaim(claim.to_owned())
}

fn malformed(claim: &str) -> Refused {
    Refused::MalformedClaim(claim.to_owned())
}

/// One that takes tokens signed with the private half of the tests' key.
async fn with_ed25519() -> (Kit, TempDir) {
    let folder = TempDir::new().unwrap();
    let public = Kit::file(&folder, "join.pub.pem", ED25519_PUBLIC);
    let key = JoinKey::Ed25519 {
        private: None,
        public,
    };
    let kit = Kit::with(|settings| settings.join = Some(join_settings(key))).await;
    (kit, folder)
}

#[tokio::test]
async fn a_join_token_grants_what_it_claims() {
    let kit = Kit::new().await;
    let claims = json!({
        "sub": "guest-7", "space": "photos", "scope": "upload read", "max_size": 25_000_000,
        "max_uploads": 20, "max_bytes": 500_000_000, "content_types": ["image/*", "video/mp4"],
    });
    let caller = kit.ask(&join_token(NOW, &claims)).await.unwrap();
    assert_eq!(caller.subject.unwrap().as_str(), "guest-7");
    assert_eq!(caller.token.unwrap().as_str(), "party-1");
    assert_eq!(caller.space.as_str(), "photos");
    assert!(caller.guest && caller.bound);
    assert!(caller.scopes.allow(Scope::Upload) && caller.scopes.allow(Scope::Read));
    assert_eq!(caller.grant.max_size, Some(Length(25_000_000)));
    assert_eq!(caller.grant.max_uploads, Some(20));
    assert_eq!(caller.grant.max_bytes, Some(500_000_000));
    assert!(caller.grant.content_types.allow("image/png"));
    assert!(!caller.grant.content_types.allow("text/html"));
}

#[tokio::test]
async fn a_join_token_without_limits_is_to_upload_as_whoever_has_it() {
    let kit = Kit::new().await;
    let caller = kit.ask(&join_token(NOW, &json!({}))).await.unwrap();
    assert_eq!(caller.subject.unwrap().as_str(), "join:party-1");
    assert!(caller.scopes.allow(Scope::Upload) && !caller.scopes.allow(Scope::Read));
    assert_eq!(caller.grant, jumar::model::caller::Grant::default());
}

#[tokio::test]
async fn minted_tokens_are_taken() {
    let folder = TempDir::new().unwrap();
    let pair = JoinKey::Ed25519 {
        private: Some(Kit::file(
            &folder,
            "join.pem",
            include_str!("../../support/keys/ed25519.pem"),
        )),
        public: Kit::file(&folder, "join.pub.pem", ED25519_PUBLIC),
    };
    for key in [JoinKey::Secret(SECRET.into()), pair] {
        let settings = join_settings(key);
        let kit = Kit::with(|all| all.join = Some(settings.clone())).await;
        let invitation = Invitation {
            space: "photos".parse().unwrap(),
            subject: Some("guest-7".parse().unwrap()),
            scope: Scope::Read,
            expires_at: NOW.after(Duration::from_mins(5)),
            max_size: Some(1),
            max_uploads: Some(2),
            max_bytes: Some(3),
            content_types: vec!["image/*".to_owned()],
        };
        let (id, token) = mint(&settings, &invitation, NOW).expect("minted");
        let caller = kit.ask(&token).await.unwrap();
        assert_eq!(caller.token, Some(id));
        assert_eq!(caller.subject, invitation.subject);
        assert_eq!(caller.space, invitation.space);
        assert!(caller.scopes.allow(Scope::Read) && !caller.scopes.allow(Scope::Upload));
        assert_eq!(caller.grant.max_size, Some(Length(1)));
        assert_eq!(caller.grant.max_uploads, Some(2));
        assert_eq!(caller.grant.max_bytes, Some(3));
    }
}

#[test]
fn sealed_secrets_do_not_print() {
    let settings = join_settings(JoinKey::Secret(SECRET.into()));
    let shown = format!("{settings:?}");
    assert!(shown.contains("JoinKey(…)"), "{shown}");
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute_and_not_by_more() {
    let kit = Kit::new().await;
    let of = |claims: &Value| join_token(NOW, claims);
    let minute = 60;
    for (claims, expected) in [
        (json!({"exp": secs(NOW) - minute + 1}), None),
        (json!({"exp": secs(NOW) - minute}), Some(Refused::Expired)),
        (json!({"iat": secs(NOW) + minute}), None),
        (
            json!({"iat": secs(NOW) + minute + 1}),
            Some(Refused::NotYetValid),
        ),
        (json!({"nbf": secs(NOW) + minute}), None),
        (
            json!({"nbf": secs(NOW) + minute + 1}),
            Some(Refused::NotYetValid),
        ),
        (json!({"exp": 1.7e9 - 59.5, "iat": null}), None),
        (json!({"exp": 1e300}), None),
        (json!({"exp": -1e300}), Some(Refused::Expired)),
    ] {
        let answer = kit.ask(&of(&claims)).await;
        assert_eq!(answer.err(), expected, "{claims}");
    }
}

/// What is remembered of a token does not outlive it.
#[tokio::test]
async fn a_token_that_was_taken_expires() {
    let kit = Kit::new().await;
    let token = join_token(NOW, &json!({}));
    kit.ask(&token).await.expect("good");
    kit.clock.advance(Duration::from_hours(1) + LEEWAY);
    assert_eq!(kit.refused(&token).await, Refused::Expired);
}

#[tokio::test]
async fn a_token_revoked_by_another_process_is_refused() {
    let kit = Kit::new().await;
    let token = join_token(NOW, &json!({}));
    kit.ask(&token).await.expect("good");
    let revoked = kit
        .outsider()
        .revoke_token("party-1".parse().unwrap(), NOW, None)
        .await;
    revoked.expect("revoked");
    kit.until(&token, Err(Refused::Revoked)).await;
    let another = join_token(NOW, &json!({"jti": "party-2"}));
    kit.ask(&another).await.expect("good");
}

#[tokio::test]
async fn claims_that_are_missing_or_malformed_are_named() {
    let kit = Kit::new().await;
    for (claims, expected) in [
        (json!({"exp": null}), missing("exp")),
        (json!({"jti": null}), missing("jti")),
        (json!({"space": null}), missing("space")),
        (json!({"aud": null}), missing("aud")),
        (json!({"iss": null}), missing("iss")),
        (json!({"exp": "tomorrow"}), malformed("exp")),
        (json!({"iss": 7}), malformed("iss")),
        (json!({"aud": 7}), malformed("aud")),
        (json!({"jti": "a b"}), malformed("jti")),
        (json!({"space": "../x"}), malformed("space")),
        (json!({"sub": "a\nb"}), malformed("sub")),
        (json!({"sub": "key:0123"}), malformed("sub")),
        (json!({"sub": "join:party-2"}), malformed("sub")),
        (json!({"scope": "admin"}), malformed("scope")),
        (json!({"scope": ["upload", "admin"]}), malformed("scope")),
        (json!({"scope": "everything"}), malformed("scope")),
        (json!({"max_size": "25MB"}), malformed("max_size")),
        (json!({"max_size": -1}), malformed("max_size")),
        (
            json!({"content_types": ["*/*"]}),
            malformed("content_types"),
        ),
        (json!({"content_types": [1]}), malformed("content_types")),
        (json!({"space": "elsewhere"}), Refused::UnknownSpace),
        (json!({"aud": "somebody"}), Refused::WrongAudience),
        (json!({"aud": ["somebody"]}), Refused::WrongAudience),
        (json!({"iss": "somebody"}), Refused::UnknownIssuer),
    ] {
        let answer = kit.refused(&join_token(NOW, &claims)).await;
        assert_eq!(answer, expected, "{claims}");
    }
}

#[tokio::test]
async fn how_a_token_is_signed_is_not_its_own_to_say() {
    let kit = Kit::new().await;
    let claims = join_claims(NOW);
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    let unsigned = |header: &str| format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header));
    for none in ["none", "None", "", "HS1"] {
        let token = unsigned(&format!(r#"{{"alg":"{none}"}}"#));
        assert_eq!(kit.refused(&token).await, Refused::WrongAlgorithm, "{none}");
    }
    let token = unsigned(r#"{"alg":"HS256"}"#);
    assert_eq!(kit.refused(&token).await, Refused::BadSignature);
    let critical = unsigned(r#"{"alg":"HS256","crit":["exp"]}"#);
    assert_eq!(kit.refused(&critical).await, Refused::Malformed);
    let longer = Signer {
        algorithm: Algorithm::HS512,
        ..Signer::secret(SECRET.as_bytes())
    };
    for signer in [longer, Signer::ed25519(), Signer::rsa(Algorithm::RS256)] {
        let answer = kit.refused(&signer.sign(&claims)).await;
        assert_eq!(answer, Refused::WrongAlgorithm, "{:?}", signer.algorithm);
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let (kit, _folder) = with_ed25519().await;
    let claims = join_claims(NOW);
    kit.ask(&Signer::ed25519().sign(&claims))
        .await
        .expect("good");
    let forged = Signer::secret(ED25519_PUBLIC.as_bytes()).sign(&claims);
    assert_eq!(kit.refused(&forged).await, Refused::WrongAlgorithm);
    let relabelled = forged.replacen(
        &forged[..forged.find('.').unwrap()],
        &URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#),
        1,
    );
    assert_eq!(kit.refused(&relabelled).await, Refused::BadSignature);
    let strange = Signer::other_ed25519().sign(&claims);
    assert_eq!(kit.refused(&strange).await, Refused::BadSignature);
}

#[tokio::test]
async fn a_token_that_was_changed_or_cut_is_refused() {
    let kit = Kit::new().await;
    let token = join_token(NOW, &json!({}));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let richer = with(join_claims(NOW), &json!({"space": "photos"})).to_string();
    let header = message.split_once('.').unwrap().0;
    let changed = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(richer));
    assert_eq!(kit.refused(&changed).await, Refused::BadSignature);
    for len in 0..token.len() {
        let answer = kit.refused(&token[..len]).await;
        let expected = [Refused::Malformed, Refused::BadSignature];
        assert!(expected.contains(&answer), "{len}: {answer:?}");
    }
    for wrong in [
        "",
        "a",
        "a.b.c",
        "..",
        "é.é.é",
        &format!("{token}.x"),
        &format!("{token} x"),
    ] {
        let answer = kit.refused(wrong).await;
        assert!(
            [Refused::Malformed, Refused::BadSignature].contains(&answer),
            "{wrong}: {answer:?}"
        );
    }
    let long = format!("{token}{}", "x".repeat(100_000));
    assert_eq!(kit.refused(&long).await, Refused::TooLong { at_most: 8192 });
}
