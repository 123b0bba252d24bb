//! Content codings of answers to reads of events, which are asked for as they are and may come encoded all the same.
//!
//! Invariants: what could be decoded before a fault is kept; no more than a limit is held of what is decoded, whatever
//! a short text unpacks to. A coding that is not known leaves the body as it came.

use std::io::Read;

use brotli_decompressor::{BrotliDecoderParameter, Decompressor};
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use crate::kernel::cause::Cause;

/// Codings over each other, at most: nobody needs two.
const MAX_CODINGS: usize = 3;

/// Bytes that are decoded at a time.
const STEP: usize = 64 << 10;

/// A known coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

/// Why a body is not decoded whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The coding is not known, or broken.
    Broken(Cause),
    /// It is larger than the limit by so many bytes at least.
    TooLarge(u64),
}

/// A body, decoded as far as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) body: Bytes,
    pub(super) fault: Option<DecodeError>,
}

/// The codings of a body, in the order in which they were applied.
///
/// # Errors
/// One is not known.
pub(super) fn of(headers: &HeaderMap) -> Result<Vec<Coding>, DecodeError> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            match &name.trim_ascii().to_ascii_lowercase()[..] {
                b"" | b"identity" => {}
                b"gzip" | b"x-gzip" => codings.push(Coding::Gzip),
                b"deflate" => codings.push(Coding::Deflate),
                b"br" => codings.push(Coding::Brotli),
                _ => return Err(DecodeError::Broken("a content coding that is not known".into())),
            }
        }
    }
    if codings.len() > MAX_CODINGS { Err(DecodeError::Broken("too many content codings".into())) } else { Ok(codings) }
}

/// Decodes a body, to `limit` bytes at most.
pub(super) fn decode(codings: &[Coding], body: Bytes, limit: usize) -> Decoded {
    let mut decoded = Decoded { body, fault: None };
    for coding in codings.iter().rev() {
        let (body, fault) = match coding {
            Coding::Gzip => drain(MultiGzDecoder::new(&decoded.body[..]), limit),
            Coding::Deflate if is_zlib(&decoded.body) => drain(ZlibDecoder::new(&decoded.body[..]), limit),
            // What some servers send by that name.
            Coding::Deflate => drain(DeflateDecoder::new(&decoded.body[..]), limit),
            Coding::Brotli => drain(brotli(&decoded.body), limit),
        };
        decoded = Decoded { body, fault: decoded.fault.or(fault) };
    }
    decoded
}

/// As RFC 7932 says. The extension would let a few bytes ask for a window of 1 GiB.
fn brotli(body: &[u8]) -> Decompressor<&[u8]> {
    let mut decoder = Decompressor::new(body, STEP);
    decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
    decoder
}

/// Whether it begins as RFC 1950 says.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

/// Reads to the end, to a fault, or so far beyond the limit that it is no matter how far.
fn drain(mut decoder: impl Read, limit: usize) -> (Bytes, Option<DecodeError>) {
    let (mut out, mut beyond, mut step) = (Vec::new(), 0, vec![0; STEP]);
    let broken = loop {
        match decoder.read(&mut step) {
            Ok(0) => break None,
            Ok(n) => {
                let fits = n.min(limit - out.len());
                out.extend_from_slice(&step[..fits]);
                beyond += (n - fits) as u64;
                if beyond > limit as u64 {
                    break None;
                }
            }
            Err(why) => {
                break Some(DecodeError::Broken(Cause::of(format!("its content coding is broken: {why}"), why)));
            }
        }
    };
    let too_large = (beyond > 0).then_some(DecodeError::TooLarge(beyond));
    (out.into(), too_large.or(broken))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    /// By Google's encoder: what [`text`] says.
    const BROTLI: &str = "G+oGABwFbqzN70SBW5evUIvsfbU04UzycOGevMTVymStw9LVFwuZzKL+5KyqnDaEhARAqDmNNIDH8NrjRimP+F8i+CjSf7z5g8c/b+Kll2L++u9D1xCvTRxJE3mmXFKtqNc0G9ot3e4ngieBMZqSOVuWVpV1bdPYtna7U8IhGKMpmbNlaVVZ1zaNbWu3O2UchjGakjlbllaVdW3T2LZ2t7vv";

    fn text() -> String {
        let events: Vec<_> = (0..40).map(|n| format!(r#"{{"n":{n},"type":"Login","user_id":"user-{n}"}}"#)).collect();
        format!(r#"{{"result":"success","events":[{}]}}"#, events.join(","))
    }

    fn encoded(coding: &str, text: &[u8]) -> Bytes {
        let level = Compression::default();
        let packed = match coding {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(text).unwrap();
                encoder.finish()
            }
            "zlib" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(text).unwrap();
                encoder.finish()
            }
            _ => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(text).unwrap();
                encoder.finish()
            }
        };
        packed.unwrap().into()
    }

    /// Each coding by its name in the header, and the text in it.
    fn all() -> [(&'static str, Bytes); 4] {
        let text = text();
        [
            ("x-gzip", encoded("gzip", text.as_bytes())),
            ("DEFLATE", encoded("zlib", text.as_bytes())),
            ("deflate", encoded("raw", text.as_bytes())),
            ("br", STANDARD.decode(BROTLI).unwrap().into()),
        ]
    }

    fn codings(names: &str) -> Result<Vec<Coding>, DecodeError> {
        of(&HeaderMap::from_iter([(CONTENT_ENCODING, names.parse().unwrap())]))
    }

    #[test]
    fn each_coding_is_decoded_and_so_are_codings_over_each_other() {
        let whole = Decoded { body: text().into(), fault: None };
        for (name, body) in all() {
            assert_eq!(decode(&codings(name).unwrap(), body, 1 << 20), whole, "{name}");
        }
        let twice = encoded("gzip", &encoded("zlib", text().as_bytes()));
        assert_eq!(decode(&codings("deflate, identity,gzip").unwrap(), twice, 1 << 20), whole);
        assert_eq!(decode(&codings("identity").unwrap(), text().into(), 1 << 20), whole);
    }

    #[test]
    fn codings_that_are_not_known_or_too_many_are_told() {
        for names in ["zstd", "gzip, compress", "gzip,gzip,gzip,gzip"] {
            assert!(codings(names).is_err(), "{names}");
        }
    }

    #[test]
    fn what_unpacks_to_more_than_the_limit_is_cut_there_and_the_rest_counted_so_far() {
        let bomb = encoded("gzip", &vec![b' '; 50 << 20]);
        let Decoded { body, fault } = decode(&[Coding::Gzip], bomb, 1 << 20);
        assert_eq!(body.len(), 1 << 20);
        assert!(
            matches!(fault, Some(DecodeError::TooLarge(beyond)) if beyond > 1 << 20 && beyond < 2 << 20),
            "{fault:?}"
        );
        let Decoded { body, fault } = decode(&[Coding::Gzip], encoded("gzip", b"12345"), 3);
        assert_eq!((&body[..], fault), (&b"123"[..], Some(DecodeError::TooLarge(2))));
    }

    properties! {
        #[test]
        fn of_a_body_that_was_cut_or_damaged_the_beginning_is_decoded(
            which in 0..4usize, at in 0.0..1.0f64, damage in prop::option::of(any::<u8>())
        ) {
            let (name, body) = &all()[which];
            let at = (body.len() as f64 * at) as usize;
            let mut body = body.to_vec();
            match damage {
                None => body.truncate(at),
                Some(byte) => body[at] ^= byte,
            }
            let Decoded { body: found, fault } = decode(&codings(name).unwrap(), body.into(), 1 << 20);
            if damage.is_none() {
                prop_assert!(text().as_bytes().starts_with(&found));
                // Raw DEFLATE has no word for its end that a cut could take away.
                prop_assert!(fault.is_some() || found.len() < text().len() || *name != "x-gzip");
            }
        }
    }
}
