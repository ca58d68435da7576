//! A line of `authorized_keys` (sshd(8)): is it a key that sshd takes?
//!
//! A key that lost a character on its way would be written down, and its owner would stand outside. So the blob is taken
//! apart as sshd does it (RFC 4253, 6.6; RFC 5656, 3.1; RFC 8709, 4; OpenSSH's PROTOCOL.u2f): the type in it is the one in
//! front of it, its lengths add up, and numbers and points have a size that their type allows.

use base64::Engine;

/// Bits of RSA keys that sshd takes without being told otherwise (`RequiredRSASize`), and that OpenSSH can read at all.
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=16_384;
/// A blob has no more parts.
const MAX_PARTS: usize = 4;

/// True for one key without options, with or without a comment.
pub fn is_key(text: &str) -> bool {
    let text = text.trim();
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return false };
    let plain = !text.chars().any(|c| c.is_control() && c != '\t');
    let decoded = base64::engine::general_purpose::STANDARD.decode(blob);
    plain && decoded.is_ok_and(|blob| parts(&blob).is_some_and(|parts| fits(kind, &parts)))
}

/// The strings of a blob, each behind its length; none when they do not end where it ends.
fn parts(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        parts.push(part);
        blob = rest;
    }
    (parts.len() <= MAX_PARTS).then_some(parts)
}

fn fits(kind: &str, parts: &[&[u8]]) -> bool {
    let Some((named, rest)) = parts.split_first() else { return false };
    if *named != kind.as_bytes() {
        return false;
    }
    match (kind, rest) {
        ("ssh-ed25519", [key]) => key.len() == 32,
        ("sk-ssh-ed25519@openssh.com", [key, application]) => key.len() == 32 && !application.is_empty(),
        ("ssh-rsa", [exponent, modulus]) => {
            bits(exponent).is_some_and(|bits| bits > 1) && bits(modulus).is_some_and(|bits| RSA_BITS.contains(&bits))
        }
        ("ecdsa-sha2-nistp256", [curve, key]) => *curve == b"nistp256" && is_point(key, 32),
        ("ecdsa-sha2-nistp384", [curve, key]) => *curve == b"nistp384" && is_point(key, 48),
        ("ecdsa-sha2-nistp521", [curve, key]) => *curve == b"nistp521" && is_point(key, 66),
        ("sk-ecdsa-sha2-nistp256@openssh.com", [curve, key, application]) => {
            *curve == b"nistp256" && is_point(key, 32) && !application.is_empty()
        }
        _ => false,
    }
}

/// An uncompressed point of a curve (SEC 1, 2.3.3), each coordinate of so many bytes.
fn is_point(point: &[u8], bytes: usize) -> bool {
    point.first() == Some(&4) && point.len() == 2 * bytes + 1
}

/// Bits of a positive number (RFC 4251, 5: mpint); none for any other, or one that is not in its shortest form.
fn bits(number: &[u8]) -> Option<usize> {
    let digits = match number {
        [0, first, ..] if *first >= 0x80 => number.get(1..)?,
        [first, ..] if (1..0x80).contains(first) => number,
        _ => return None,
    };
    let first = digits.first()?;
    Some(digits.len() * 8 - usize::try_from(first.leading_zeros()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_sys::cmd::Cmd;
    use proptest::prelude::*;

    /// Keys that the real ssh-keygen makes.
    fn made() -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let make = |(kind, bits): &(&str, &str)| {
            let path = dir.path().join(format!("{kind}-{bits}"));
            let keygen = Cmd::new("ssh-keygen").args(["-q", "-t", kind, "-b", bits, "-N", "", "-C", "me@laptop", "-f"]);
            keygen.arg(&path).run().unwrap();
            std::fs::read_to_string(path.with_extension("pub")).unwrap()
        };
        [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")]
            .iter()
            .map(make)
            .collect()
    }

    #[test]
    fn what_ssh_keygen_makes_is_taken_and_what_lost_a_character_is_not() {
        for key in made() {
            assert!(is_key(&key) && is_key(&key.replace(' ', "\t")), "{key}");
            let blob = key.split(' ').nth(1).unwrap();
            for at in (0..blob.len()).step_by(7) {
                let mut lost = blob.to_owned();
                lost.remove(at);
                assert!(!is_key(&key.replace(blob, &lost)), "{key} without character {at}");
                // Four are a whole group of base64.
                let mut group = blob.to_owned();
                group.drain(at..(at + 4).min(blob.len()));
                assert!(!is_key(&key.replace(blob, &group)), "{key} without four characters at {at}");
            }
            assert!(
                !is_key(&key.replace("ssh-ed25519 ", "ssh-rsa ").replace("ecdsa-sha2-", "x-"))
                    || key.starts_with("ssh-rsa")
            );
            assert!(!is_key(&format!("restrict {key}")) && !is_key(blob) && !is_key(&key[..20]));
        }
    }

    #[test]
    fn keys_on_tokens_are_known_by_their_parts() {
        let blob = |parts: &[&[u8]]| {
            let bytes: Vec<u8> =
                parts.iter().flat_map(|p| [&u32::try_from(p.len()).unwrap().to_be_bytes()[..], p].concat()).collect();
            base64::engine::general_purpose::STANDARD.encode(bytes)
        };
        let kind = "sk-ssh-ed25519@openssh.com";
        assert!(is_key(&format!("{kind} {}", blob(&[kind.as_bytes(), &[7; 32], b"ssh:"]))));
        assert!(!is_key(&format!("{kind} {}", blob(&[kind.as_bytes(), &[7; 32]]))));
        let kind = "sk-ecdsa-sha2-nistp256@openssh.com";
        let point = [&[4][..], &[7; 64]].concat();
        assert!(is_key(&format!("{kind} {}", blob(&[kind.as_bytes(), b"nistp256", &point, b"ssh:"]))));
        // A short RSA key, which sshd refuses, and a negative number.
        for modulus in [&[0x7f; 64][..], &[0xff; 256], &[]] {
            assert!(!is_key(&format!("ssh-rsa {}", blob(&[b"ssh-rsa", &[1, 0, 1], modulus]))));
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(ssh-rsa|ssh-ed25519)?[ \t]{0,2}[A-Za-z0-9+/=]{0,120}[ -~]{0,20}") {
            let _ = is_key(&text);
        }
    }
}
