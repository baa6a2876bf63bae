//! Signs a request anew after a header was taken away, because a real server refuses one whose signed
//! headers are not all there. AWS signature version 4, as far as a request of this project needs it:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use super::super::Result;
use super::Sent;
use aws_lc_rs::hmac;
use std::fmt::Write as _;
use understudy::object::Digest;

pub(super) fn without(mut sent: Sent, name: &str, secret: &str) -> Result<Sent> {
    sent.headers.remove(name);
    let text = |name: &str| -> Result<&str> {
        let value = sent.headers.get(name).ok_or_else(|| format!("no header {name}"))?;
        Ok(value.to_str()?)
    };
    let authorization = text("authorization")?.to_owned();
    let part = |name: &str| -> Result<&str> {
        let (_, rest) = authorization.split_once(name).ok_or_else(|| format!("no {name}"))?;
        Ok(rest.split(',').next().unwrap_or_default().trim())
    };
    let (credential, signed) = (part("Credential=")?, part("SignedHeaders=")?);
    let (_, scope) = credential.split_once('/').ok_or("no scope")?;
    let signed: Vec<&str> = signed.split(';').filter(|signed| *signed != name).collect();
    let mut headers = String::new();
    for name in &signed {
        writeln!(headers, "{name}:{}", text(name)?.trim())?;
    }
    let mut query: Vec<&str> =
        sent.target.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()).collect();
    query.sort_unstable();
    let signed = signed.join(";");
    let canonical = [
        sent.method.as_str(),
        sent.target.path(),
        &query.join("&"),
        &headers,
        &signed,
        text("x-amz-content-sha256")?,
    ]
    .join("\n");
    let digest = Digest::of(canonical.as_bytes());
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{digest}", text("x-amz-date")?);
    let mut key = format!("AWS4{secret}").into_bytes();
    for step in scope.split('/') {
        key = mac(&key, step);
    }
    let signature: [u8; 32] = mac(&key, &to_sign).as_slice().try_into()?;
    let renewed = format!(
        "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={}",
        Digest(signature)
    );
    sent.headers.insert("authorization", renewed.parse()?);
    Ok(sent)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
