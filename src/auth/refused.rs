//! Why a token is not taken.

/// Why a token is not taken. Tells its holder what is wrong with it, and nothing that is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No API key is this one.
    #[error("the token is not known here")]
    Unknown,
    /// It is neither an API key nor a signed token.
    #[error("the token is malformed")]
    Malformed,
    /// It is longer than any token has to be.
    #[error("the token is longer than {at_most} bytes")]
    TooLong {
        /// The most that is read.
        at_most: usize,
    },
    /// It was good until a while ago.
    #[error("the token has expired")]
    Expired,
    /// It will be good in a while, or its issuer's clock is ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is meant for somebody else.
    #[error("the token is for another audience")]
    WrongAudience,
    /// It is not signed, or in a way that this issuer's tokens may not be.
    #[error("the token's algorithm is not taken")]
    WrongAlgorithm,
    /// The issuer has no such key, or more than one that could be meant.
    #[error("the token's key is not known here")]
    UnknownKeyId,
    /// It is of nobody whose tokens are taken.
    #[error("the token's issuer is not known here")]
    UnknownIssuer,
    /// It was not signed by its issuer, or changed since.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Somebody has ended it.
    #[error("the token was revoked")]
    Revoked,
    /// It has to say something that it does not.
    #[error("the token lacks the claim {0}")]
    MissingClaim(String),
    /// It says something that cannot be understood or may not be said.
    #[error("the token's claim {0} is malformed")]
    MalformedClaim(String),
    /// There is no such space.
    #[error("the token's space is not known here")]
    UnknownSpace,
    /// The keys of its issuer were never to be had. Trying later may work.
    #[error("the keys of the token's issuer cannot be had now")]
    KeysAway,
}
