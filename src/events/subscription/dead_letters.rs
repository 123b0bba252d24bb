//! Dead letters: events that were given up for a subscription, kept until an operator clears them or has them given
//! again.
//!
//! Invariants: an entry is on the list and settled by one write; one that is given again stays on the list until it is
//! acknowledged, so that it is never nowhere. A subscription keeps [`MAX_DEAD_LETTERS`]; beyond, the oldest go, which is
//! told in the log. A letter holds the event's text, so that it can be read when retention has removed the event; only
//! what the log still has can be given again.
//!
//! A note's bytes: one line of JSON, a line feed, the event's text. It is on disk: members may be added.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::lease_name::LeaseName;
use super::leases::collect;
use super::{Subscription, notes};
use crate::events::app_stream::AppStream;
use crate::events::log::loss::Loss;
use crate::events::{Cursor, Events, ReadError};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::store::{Content, Error, NoteKind, Sequence};

/// The most dead letters of one subscription.
pub const MAX_DEAD_LETTERS: usize = 10_000;

/// An event that was given up for a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's place in the log.
    pub cursor: Cursor,
    /// When it was given up.
    pub at: UnixMillis,
    /// How often it was handed out.
    pub attempts: u32,
    /// What became of the last attempt.
    pub reason: String,
    /// The event's text; of a marker, its reason.
    pub event: Bytes,
    /// Whether it was put back into its subscription, and is not acknowledged yet.
    pub is_redelivering: bool,
}

/// Which dead letters are to be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeliver {
    /// All that the log still has.
    All,
    /// These.
    These(Vec<Cursor>),
}

#[derive(Serialize, Deserialize)]
struct LetterHead {
    at: u64,
    attempts: u32,
    reason: String,
}

impl Events {
    /// The dead letters of a subscription, oldest event first: those after `after`, at most `most`.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn dead_letters(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Vec<DeadLetter>, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        let log = &stream.log;
        let mut after = after.map_or(String::new(), |cursor| notes::letter(name, cursor.at.0));
        // Before the list is read: what is on it then, and was given again, is so still. One that is acknowledged by now may
        // be in the store still.
        let (listed, again) = subscription.listed().await;
        let mut letters = Vec::new();
        while letters.len() < most {
            let wanted = most - letters.len();
            let notes = log.store().notes(log.key(), NoteKind::DeadLetter, &prefix(name), &after, wanted).await?;
            letters.extend(notes.iter().filter_map(|(note, bytes)| {
                let at = place(note).filter(|at| listed.contains(at))?;
                let (head, event) = parse(bytes)?;
                Some(DeadLetter {
                    cursor: log.cursor(Sequence(at)),
                    at: UnixMillis(head.at),
                    attempts: head.attempts,
                    reason: head.reason,
                    event,
                    is_redelivering: again.contains(&at),
                })
            }));
            match notes.last() {
                Some((last, _)) if notes.len() == wanted => after.clone_from(last),
                _ => break,
            }
        }
        Ok(letters)
    }

    /// Puts dead letters back into their subscription, as new events that wait for no other. They stay on the list until
    /// they are acknowledged. Durable on return. Says how many.
    ///
    /// # Errors
    /// [`ReadError::NoSuchDeadLetter`], or [`ReadError::Expired`] when one of those named is not in the log any more:
    /// then none is put back. When there is no such subscription, or the store fails.
    pub async fn redeliver(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        which: Redeliver,
    ) -> Result<u64, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        let giving = async move { redeliver(&stream, &subscription, which).await };
        self.0.parts.shared.to_its_end(giving).await
    }

    /// Takes dead letters off the list: one, or all that are not being given again. Says how many.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn clear_dead_letters(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        one: Option<Cursor>,
    ) -> Result<u64, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        let one = one.map(|cursor| (stream.log.has_made(cursor), cursor.at.0));
        let clearing = async move {
            let _turn = subscription.letters_turn.lock().await;
            // That they are settled must not be known from their letters alone.
            subscription.save(stream.log.store()).await?;
            let is_meant = |at: u64, is_given_again: bool| match one {
                Some((is_ours, one)) => is_ours && one == at,
                None => !is_given_again,
            };
            subscription.forget_letters(is_meant, stream.log.store()).await
        };
        Ok(self.0.parts.shared.to_its_end(clearing).await? as u64)
    }

    pub(in crate::events) fn subscription(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
    ) -> Result<(Arc<AppStream>, Arc<Subscription>), ReadError> {
        let stream = self.stream(app, stream)?;
        let subscription = stream.registry.get(name).ok_or(ReadError::NoSuchSubscription)?;
        Ok((stream, subscription))
    }
}

async fn redeliver(stream: &AppStream, subscription: &Arc<Subscription>, which: Redeliver) -> Result<u64, ReadError> {
    let _turn = subscription.letters_turn.lock().await;
    // What was acknowledged is no dead letter any more, and must not be taken for one.
    subscription.save(stream.log.store()).await?;
    let (listed, again) = subscription.listed().await;
    let earliest = stream.log.range().start;
    let mut wanted: Vec<u64> = match which {
        Redeliver::All => listed.into_iter().filter(|&at| at >= earliest.0).collect(),
        Redeliver::These(cursors) => {
            for cursor in &cursors {
                if !stream.log.has_made(*cursor) || !listed.contains(&cursor.at.0) {
                    return Err(ReadError::NoSuchDeadLetter);
                }
                if cursor.at < earliest {
                    return Err(ReadError::Expired { earliest: stream.log.cursor(earliest.previous()), lost: Some(1) });
                }
            }
            cursors.iter().map(|cursor| cursor.at.0).collect()
        }
    };
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|at| !again.contains(at));
    subscription.put_back(&wanted, stream.shared.clock.now());
    subscription.save(stream.log.store()).await?;
    Ok(wanted.len() as u64)
}

/// Puts entries (in order: number, attempts, reason) on the list of the dead, and settles them. Of what retention has
/// removed meanwhile, readers are told. Those alone that are open until they are buried, and held by this lease: others
/// were acknowledged meanwhile, or are of no account after a seek. Says how many, and whether that is durable: where the
/// store fails they are settled all the same, and stored, letter and all, when it recovers.
///
/// # Errors
/// When the store fails before that; then nothing has changed.
pub(in crate::events) async fn bury(
    stream: &Arc<AppStream>,
    subscription: &Arc<Subscription>,
    given_up: Vec<(u64, u32, String)>,
    by: Option<LeaseName>,
) -> Result<(u64, Result<(), Error>), Error> {
    let (of, subscription) = (Arc::clone(stream), Arc::clone(subscription));
    stream.shared.to_its_end(async move { bury_now(&of, &subscription, given_up, by).await }).await
}

async fn bury_now(
    stream: &AppStream,
    subscription: &Arc<Subscription>,
    mut given_up: Vec<(u64, u32, String)>,
    by: Option<LeaseName>,
) -> Result<(u64, Result<(), Error>), Error> {
    let _turn = subscription.letters_turn.lock().await;
    // Others may have been faster.
    given_up.retain(|&(at, ..)| subscription.is_open(at, by));
    let entries: Vec<u64> = given_up.iter().map(|(at, ..)| *at).collect();
    let (runs, gone) = collect(stream, &entries, Vec::new()).await?;
    let mut texts = runs.iter().flat_map(|run| {
        run.entries.clone().map(|entry| match &run.batch.content {
            Content::Events(events) => events.slice(entry..entry + 1),
            Content::PossibleLoss(reason) => Bytes::copy_from_slice(reason.as_bytes()),
            Content::Damaged(_) => Bytes::from_static(b"damaged"),
        })
    });
    let now = stream.shared.clock.wall_ms();
    let there = given_up.into_iter().filter(|(at, ..)| gone.binary_search(at).is_err());
    let letters = there
        .zip(&mut texts)
        .map(|((at, attempts, reason), text)| (at, written(&LetterHead { at: now.0, attempts, reason }, &text)))
        .collect();
    let now = stream.shared.clock.now();
    subscription.gone(&gone, now);
    let buried = subscription.bury(letters, by, now);
    // Before a later event of the same user goes out: it must not come again after that.
    Ok((buried, subscription.save(stream.log.store()).await))
}

fn prefix(name: &SubscriptionName) -> String {
    format!("{name}/")
}

/// The entry of a note's name.
fn place(note: &str) -> Option<u64> {
    note.rsplit_once('/')?.1.parse().ok()
}

fn written(head: &LetterHead, text: &[u8]) -> Bytes {
    // Strings and numbers always serialize.
    let mut note = serde_json::to_vec(head).unwrap_or_default();
    note.push(b'\n');
    note.extend_from_slice(text);
    note.into()
}

/// The letter of a marker of what retention took.
pub(in crate::events) fn of_marker(at: UnixMillis, attempts: u32, reason: &str) -> Bytes {
    let Content::PossibleLoss(text) = Loss::Retention.marker() else { return Bytes::new() };
    written(&LetterHead { at: at.0, attempts, reason: reason.to_owned() }, text.as_bytes())
}

fn parse(note: &Bytes) -> Option<(LetterHead, Bytes)> {
    let end = note.iter().position(|&byte| byte == b'\n')?;
    Some((serde_json::from_slice(&note[..end]).ok()?, note.slice(end + 1..)))
}
