//! Why a request got no answer, and what that says about it: the one place that reads the HTTP library's errors.
//!
//! Invariants: in doubt a request may have been acted on. It was not only if no connection could be made, if the
//! connection ended before it began to write it, or if the vendor says so in HTTP/2's words: RST_STREAM with
//! REFUSED_STREAM (RFC 9113 section 8.7), which is what a GOAWAY with a last stream below its own becomes (`goaway`).

use std::error::Error as StdError;
use std::io;

use hyper_util::client::legacy::Error;

use super::connector::ConnectTimedOut;
use crate::kernel::cause::Cause;
use crate::kernel::targets::innermost;

/// Why there is no head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No byte of the request left.
    NotSent {
        /// Because making the connection took too long.
        timed_out: bool,
        why: Cause,
    },
    /// It may have left, but it was not acted on and never will be.
    Unprocessed { why: Cause },
    /// It may have left, whole or in part.
    MaybeSent {
        /// Whether the other end closed the connection or the stream. If not, this one gave it up, and what was sent
        /// may still be on its way.
        ended_there: bool,
        why: Cause,
    },
}

impl Fault {
    /// What hyper-util's error says about the request.
    pub(crate) fn of(error: Error) -> Self {
        let is_connect = error.is_connect();
        Self::read(error, is_connect)
    }

    pub(super) fn read(error: impl StdError + Send + Sync + 'static, is_connect: bool) -> Self {
        let timed_out = causes(&error).any(|cause| cause.is::<ConnectTimedOut>() || is_time_out(cause));
        let is_unprocessed = causes(&error).any(is_unprocessed);
        let given_up_here = timed_out || causes(&error).any(is_own_doing);
        // The innermost tells most: "connection refused", "invalid peer certificate".
        let why = Cause::of(innermost(&error).to_string(), error);
        if is_connect {
            Self::NotSent { timed_out, why }
        } else if is_unprocessed {
            Self::Unprocessed { why }
        } else {
            Self::MaybeSent { ended_there: !given_up_here, why }
        }
    }
}

/// Whether a request had a connection and was not acted on all the same.
pub(crate) fn was_turned_away(error: &Error) -> bool {
    !error.is_connect() && causes(error).any(is_unprocessed)
}

/// An error, and what it came from.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn StdError + 'static)| error.source())
}

/// The connection did not begin to write it, or the vendor says that it did not begin to process it.
fn is_unprocessed(cause: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return error.is_canceled();
    }
    cause.downcast_ref::<h2::Error>().is_some_and(|error| {
        error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}

/// The system, or HTTP/2's sign of life, waited in vain.
fn is_time_out(cause: &(dyn StdError + 'static)) -> bool {
    let of_system = cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
    of_system || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
}

/// The library ended it, because the other end broke HTTP/2's rules.
fn is_own_doing(cause: &(dyn StdError + 'static)) -> bool {
    cause.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (SendRequest)")]
    struct Outer<E: StdError + 'static>(#[source] E);

    fn of(cause: impl StdError + Send + Sync + 'static) -> Fault {
        Fault::read(Outer(cause), false)
    }

    #[test]
    fn an_error_of_the_transport_leaves_the_request_in_doubt() {
        for (kind, ended_there) in [
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::UnexpectedEof, true),
            (io::ErrorKind::BrokenPipe, true),
            (io::ErrorKind::TimedOut, false),
        ] {
            let Fault::MaybeSent { ended_there: there, .. } = of(io::Error::from(kind)) else { panic!("{kind:?}") };
            assert_eq!(there, ended_there, "{kind:?}");
        }
    }

    /// A reason alone says neither who gave it nor in which frame.
    #[test]
    fn only_the_vendors_own_frame_is_its_word() {
        assert!(matches!(of(h2::Error::from(h2::Reason::REFUSED_STREAM)), Fault::MaybeSent { .. }));
        assert!(matches!(of(h2::Error::from(h2::Reason::NO_ERROR)), Fault::MaybeSent { .. }));
    }

    #[test]
    fn what_a_connector_says_precedes_the_first_byte() {
        let timed_out = |kind| Fault::read(Outer(io::Error::from(kind)), true);
        assert!(matches!(timed_out(io::ErrorKind::TimedOut), Fault::NotSent { timed_out: true, .. }));
        assert!(matches!(timed_out(io::ErrorKind::ConnectionRefused), Fault::NotSent { timed_out: false, .. }));
    }
}
