//! Pure: the tokens with which a hub reaches the clusters of another one: until when each is good, and
//! which of several is taken.
//!
//! The token is a JWT of the cluster's own API server and says itself when it ends (RFC 7519, `exp`). The
//! annotation that a backup operator may have written beside it is of an earlier token, or missing, so it
//! is asked second. Nothing is verified: the date only chooses and warns, and the cluster judges.

use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Secrets of managed service accounts whose names begin so are for imports.
pub const PREFIX: &str = "auto-import-account";
pub const EXPIRATION: &str = "expirationTimestamp";

/// Has no `Debug`: it holds the token.
#[derive(Clone)]
pub struct Token {
    pub secret: String,
    pub made: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    /// As it stands in the Secret: in base64.
    pub data: String,
}

/// Of several the one that is good for longest. Where none is known to be good: one of which nobody knows
/// when it ends, or else the newest, since the date is only this hub's opinion.
pub fn choose(tokens: &[Token], now: Timestamp) -> Option<&Token> {
    let good = tokens.iter().filter(|token| token.expires.is_some_and(|at| at > now));
    good.max_by_key(|token| token.expires)
        .or_else(|| tokens.iter().max_by_key(|token| (token.expires.is_none(), token.made)))
}

/// Until when each cluster can be reached, the first to end in front. Clusters whose tokens do not tell are
/// left out.
pub fn ends(tokens: &BTreeMap<String, Vec<Token>>) -> Vec<Timestamp> {
    let last = |tokens: &Vec<Token>| tokens.iter().filter_map(|token| token.expires).max();
    let mut ends: Vec<Timestamp> = tokens.values().filter_map(last).collect();
    ends.sort();
    ends
}

/// When the token ends. `annotation`: what somebody noted beside it.
pub fn expires(token: &str, annotation: Option<&str>) -> Option<Timestamp> {
    claimed(token).or_else(|| annotation?.parse().ok())
}

fn claimed(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let payload = token.split('.').nth(1)?;
    let Claims { exp } = serde_json::from_slice(&decoded(payload)?).ok()?;
    Timestamp::from_second(exp).ok()
}

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = ((bits << 6) | u32::from(value)) & 0x3fff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(secret: &str, made: i64, expires: Option<i64>) -> Token {
        let (made, expires) = (Some(at(made)), expires.map(at));
        Token { secret: secret.to_owned(), made, expires, data: String::new() }
    }

    #[test]
    fn the_token_says_when_it_ends_and_else_the_annotation() {
        // {"alg":"none"} . {"iss":"kubernetes/serviceaccount","exp":1800000000,"sub":"ü?>"} . no signature
        let jwt = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50IiwiZXhwIjoxODAwMDAwMDAwLCJzdWIiOiLDvD8-In0.";
        let noted = "2026-12-01T00:00:00Z";
        for (token, annotation, expected) in [
            (jwt, None, Some(at(1_800_000_000))),
            (jwt, Some(noted), Some(at(1_800_000_000))),
            ("opaque", Some(noted), Some(noted.parse().unwrap())),
            ("opaque", None, None),
            ("opaque", Some("soon"), None),
            ("a.e30.b", None, None),
            ("a.*.b", Some(noted), Some(noted.parse().unwrap())),
            ("", None, None),
        ] {
            assert_eq!(expires(token, annotation), expected, "{token} {annotation:?}");
        }
    }

    #[test]
    fn of_several_tokens_one_that_is_good_is_taken_and_else_the_newest() {
        let (good, better, bad, worse, unknown) = (
            token("good", 1, Some(200)),
            token("better", 2, Some(300)),
            token("bad", 3, Some(90)),
            token("worse", 4, Some(80)),
            token("unknown", 0, None),
        );
        for (tokens, expected) in [
            (vec![], None),
            (vec![&bad], Some("bad")),
            (vec![&good, &bad], Some("good")),
            (vec![&good, &better, &unknown], Some("better")),
            (vec![&bad, &worse], Some("worse")),
            (vec![&bad, &unknown, &worse], Some("unknown")),
        ] {
            let tokens: Vec<_> = tokens.into_iter().cloned().collect();
            let chosen = choose(&tokens, at(100)).map(|token| &*token.secret);
            assert_eq!(chosen, expected);
        }
    }

    #[test]
    fn a_cluster_can_be_reached_as_long_as_its_best_token_is_good() {
        let tokens: BTreeMap<String, Vec<Token>> = [
            ("a".to_owned(), vec![token("x", 0, Some(50)), token("y", 0, Some(500))]),
            ("b".to_owned(), vec![token("x", 0, Some(400)), token("y", 0, None)]),
            ("c".to_owned(), vec![token("x", 0, None)]),
        ]
        .into();
        assert_eq!(ends(&tokens), [at(400), at(500)]);
    }
}
