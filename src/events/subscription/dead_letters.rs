//! Dead letters: events that were given up for a subscription, kept until an operator clears them or has them given
//! again.
//!
//! Invariants: an entry is on the list and settled by one write; one that is given again stays on the list until it is
//! acknowledged, so that it is never nowhere. A subscription keeps [`MAX_DEAD_LETTERS`]; beyond, the oldest go, which
//! is told in the log. A letter holds the event's text, so that it can be read when retention has removed the event;
//! only what the log still has can be given again.
//!
//! A note's bytes: one line of JSON, a line feed, the event's text. It is on disk: members may be added.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::lease_name::LeaseName;
use super::persistence::SubscriptionWriter;
use super::registry::Registry;
use super::{Subscription, notes};
use crate::events::log::cursor::Cursor;
use crate::events::log::loss::Loss;
use crate::events::log::{Log, ReadError};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SubscriptionName;
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

/// Those after `after`, oldest event first, at most `most`.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn list(
    log: &Log,
    subscription: &Subscription,
    after: Option<Cursor>,
    most: usize,
) -> Result<Vec<DeadLetter>, Error> {
    let name = subscription.name();
    let mut after = after.map_or(String::new(), |cursor| notes::letter(name, cursor.at.0));
    // Before the list is read: what is on it then, and was given again, is so still. One that is acknowledged by now
    // may be in the store still.
    let (listed, again) = subscription.listed_letters().await;
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

/// Takes one off the list, or all that are not being given again. Says how many. To be done to its end.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn clear(
    log: &Log,
    subscription: &Arc<Subscription>,
    one: Option<Cursor>,
) -> Result<u64, Error> {
    let _turn = subscription.letters_turn.lock().await;
    // That they are settled must not be known from their letters alone.
    subscription.save(log.store()).await?;
    let is_meant = |at: Sequence, is_given_again: bool| match one {
        Some(one) => log.has_made(one) && one.at == at,
        None => !is_given_again,
    };
    let writer = SubscriptionWriter { subscription, store: log.store() };
    Ok(writer.forget_letters(is_meant).await? as u64)
}

/// Puts some back, as new events that wait for no other. To be done to its end.
///
/// # Errors
/// See [`crate::events::Events::redeliver`].
pub(in crate::events) async fn redeliver(
    registry: &Registry,
    subscription: &Arc<Subscription>,
    which: Redeliver,
) -> Result<u64, ReadError> {
    let _turn = subscription.letters_turn.lock().await;
    // What was acknowledged is no dead letter any more, and must not be taken for one.
    subscription.save(registry.log.store()).await?;
    let (listed, again) = subscription.listed_letters().await;
    let earliest = registry.log.range().start;
    let mut wanted: Vec<Sequence> = match which {
        Redeliver::All => listed.into_iter().map(Sequence).filter(|&at| at >= earliest).collect(),
        Redeliver::These(cursors) => {
            for cursor in &cursors {
                if !registry.log.has_made(*cursor) || !listed.contains(&cursor.at.0) {
                    return Err(ReadError::NoSuchDeadLetter);
                }
                if cursor.at < earliest {
                    return Err(ReadError::Expired {
                        earliest: registry.log.cursor(earliest.previous()),
                        lost: Some(1),
                    });
                }
            }
            cursors.iter().map(|cursor| cursor.at).collect()
        }
    };
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|at| !again.contains(&at.0));
    subscription.put_back(&wanted, registry.shared.clock.now());
    subscription.save(registry.log.store()).await?;
    Ok(wanted.len() as u64)
}

/// Puts the entries whose attempts are spent to the dead letters.
pub(in crate::events) async fn bury_given_up(
    registry: &Arc<Registry>,
    subscription: &Arc<Subscription>,
) -> Result<(), Error> {
    loop {
        let given_up = subscription.given_up(BURIED_AT_ONCE, registry.shared.clock.now());
        if given_up.is_empty() {
            // Another may have buried some, and not be done with it.
            return if subscription.is_owed() {
                Box::pin(subscription.save(registry.log.store())).await
            } else {
                Ok(())
            };
        }
        if subscription.is_owed() {
            // What the store would not take is not made more.
            Box::pin(subscription.save(registry.log.store())).await?;
        }
        let letters = given_up.into_iter().map(|(at, attempts, why)| (at, attempts, why.to_string())).collect();
        // In a box: it is rare, and each read would hold room for it while it waits.
        let (_, stored) = Box::pin(bury(registry, subscription, letters, None)).await?;
        stored?;
    }
}

/// Puts entries (in order: number, attempts, reason) on the list of the dead, and settles them. Of what retention has
/// removed meanwhile, readers are told. Those alone that are open until they are buried, and held by this lease: others
/// were acknowledged meanwhile, or are of no account after a seek. Says how many, and whether that is durable: where
/// the store fails they are settled all the same, and stored, letter and all, when it recovers.
///
/// # Errors
/// When the store fails before that; then nothing has changed.
pub(in crate::events) async fn bury(
    registry: &Arc<Registry>,
    subscription: &Arc<Subscription>,
    given_up: Vec<(Sequence, u32, String)>,
    by: Option<LeaseName>,
) -> Result<(u64, Result<(), Error>), Error> {
    let (of, subscription) = (Arc::clone(registry), Arc::clone(subscription));
    registry.shared.to_its_end(async move { bury_now(&of, &subscription, given_up, by).await }).await
}

async fn bury_now(
    registry: &Registry,
    subscription: &Arc<Subscription>,
    mut given_up: Vec<(Sequence, u32, String)>,
    by: Option<LeaseName>,
) -> Result<(u64, Result<(), Error>), Error> {
    let _turn = subscription.letters_turn.lock().await;
    // Others may have been faster.
    given_up.retain(|&(at, ..)| subscription.is_open(at, by));
    let entries: Vec<Sequence> = given_up.iter().map(|(at, ..)| *at).collect();
    let (runs, gone) = registry.collect(&entries, Vec::new()).await?;
    let mut texts = runs.iter().flat_map(|run| {
        run.entries.clone().map(|entry| match &run.batch.content {
            Content::Events(events) => events.slice(entry..entry + 1),
            Content::PossibleLoss(reason) => Bytes::copy_from_slice(reason.as_bytes()),
            Content::Damaged(_) => Bytes::from_static(b"damaged"),
        })
    });
    let now = registry.shared.clock.wall_ms();
    let there = given_up.into_iter().filter(|(at, ..)| gone.binary_search(at).is_err());
    let letters = there
        .zip(&mut texts)
        .map(|((at, attempts, reason), text)| (at, written(&LetterHead { at: now.0, attempts, reason }, &text)))
        .collect();
    let now = registry.shared.clock.now();
    subscription.gone(&gone, now);
    let buried = subscription.bury(letters, by, now);
    // Before a later event of the same user goes out: it must not come again after that.
    Ok((buried, subscription.save(registry.log.store()).await))
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

/// So many are buried together: their texts are in memory meanwhile.
const BURIED_AT_ONCE: usize = 100;
