//! [`ExportOutput`]: where an export's messages go, and what the command ends with when it is not complete.
//!
//! Invariant: messages go out whole, and count when all of their text did: a file can be gone on with behind them,
//! stdout at least says how many of them are good.

use std::io::{self, ErrorKind};

use super::packed::Packer;
use super::partial_file::PartialFile;
use crate::cli::CliError;
use crate::cli::stdout::{PartialWrite, Stdout};

/// Where messages go.
pub(super) enum ExportOutput {
    File(Box<PartialFile>),
    Stdout(PipedExport),
}

pub(super) struct PipedExport {
    out: Stdout,
    packer: Packer,
    /// Those that were written whole.
    messages: u64,
    cursor: Option<String>,
    /// A write failed: nobody knows where what was written ends.
    is_torn: bool,
}

impl PipedExport {
    pub(super) fn new(is_packed: bool) -> Self {
        let packer = Packer::new(is_packed);
        Self { out: Stdout::default(), packer, messages: 0, cursor: None, is_torn: false }
    }

    async fn write(&mut self, bytes: Vec<u8>, messages: u64) -> io::Result<()> {
        let Err(PartialWrite { lines, why }) = self.out.write(bytes).await else {
            self.messages += messages;
            return Ok(());
        };
        // Of packed text only whole parts can be unpacked.
        self.messages += if self.packer.is_packed() { 0 } else { lines };
        self.is_torn = why.kind() != ErrorKind::BrokenPipe;
        Err(why)
    }
}

impl ExportOutput {
    pub(super) fn messages(&self) -> u64 {
        match self {
            Self::File(part) => part.messages(),
            Self::Stdout(piped) => piped.messages,
        }
    }

    pub(super) fn cursor(&self) -> Option<&str> {
        match self {
            Self::File(part) => part.cursor(),
            Self::Stdout(piped) => piped.cursor.as_deref(),
        }
    }

    pub(super) async fn append(&mut self, text: Vec<u8>, messages: u64, cursor: &str) -> io::Result<()> {
        match self {
            Self::File(part) => part.append(text, messages, cursor),
            Self::Stdout(piped) => {
                let bytes =
                    if text.is_empty() { text } else { [piped.packer.push(text), piped.packer.flush()].concat() };
                piped.write(bytes, messages).await?;
                piped.cursor = Some(cursor.to_owned());
                Ok(())
            }
        }
    }

    pub(super) async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::File(part) => part.finish(),
            Self::Stdout(piped) => {
                let end = if piped.messages == 0 { piped.packer.empty() } else { piped.packer.end() };
                piped.write(end, 0).await
            }
        }
    }

    /// It is left incomplete: what the command ends with.
    pub(super) fn leave(self, why: &str, messages: u64) -> CliError {
        match self {
            Self::File(part) if messages == 0 => {
                part.discard();
                CliError::Failed(why.to_owned())
            }
            Self::File(mut part) => {
                let kept = part.checkpoint();
                let told = match kept {
                    Ok(()) => "to go on, run the same command again".to_owned(),
                    Err(why) => format!("to go on from what was synced, run the same command again ({why})"),
                };
                CliError::Partial(format!("{why}; {messages} messages are in {}; {told}", part.part().display()))
            }
            Self::Stdout(_) if messages == 0 => CliError::Failed(why.to_owned()),
            Self::Stdout(piped) if piped.is_torn => CliError::Failed(format!(
                "{why}; {messages} messages were written whole, and what follows them is torn. To be able to go on, use \
                 --output FILE"
            )),
            Self::Stdout(_) => CliError::Partial(format!(
                "{why}; {messages} messages were written, whole but not all. To be able to go on, use --output FILE"
            )),
        }
    }
}
