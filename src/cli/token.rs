//! `rtm-gateway token mint` and `token inspect`: an RTM token made by hand, or explained.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::config::values::parse_duration;
use crate::kernel::clock::Clock;
use crate::kernel::names::AppId;
use crate::kernel::secret::{Secret, SecretError, SecretSource};
use crate::upstream::credentials::token::{LIFE, LOGIN, Token, mint, parse};

use super::CliError;

/// Mints or explains an RTM token.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum TokenCommand {
    Mint(Mint),
    Inspect(Inspect),
}

/// Mints a token, valid for 24 hours, and prints it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway token mint --app-id 0123456789abcdef0123456789abcdef \\\n    \
                        --certificate-file /run/secrets/app-certificate --uid rtm-gateway")]
struct Mint {
    /// The vendor's App ID.
    #[arg(long, value_parser = AppId::parse)]
    app_id: AppId,
    /// File that holds the app certificate.
    #[arg(long, value_name = "FILE")]
    certificate_file: PathBuf,
    /// The user the token is for.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    uid: String,
    /// When the right to log in ends: from now on ("24h"), a time ("2030-01-01T00:00:00Z"), or seconds since 1970
    /// [default: with the token].
    #[arg(long, value_name = "WHEN", value_parser = When::parse)]
    privilege_expire: Option<When>,
    /// When the token ends, in seconds since 1970 [default: in 24 hours, which is all the vendor honours].
    #[arg(long, value_name = "SECONDS")]
    ts: Option<u32>,
    /// What makes two tokens differ [default: random].
    #[arg(long, value_name = "NUMBER")]
    salt: Option<u32>,
}

/// Explains a token: whose it is, until when, and whether its signature is good.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway token inspect \"$TOKEN\" --uid rtm-gateway \\\n    \
                        --certificate-file /run/secrets/app-certificate")]
struct Inspect {
    /// The token, or - to read it from stdin.
    #[arg(allow_hyphen_values = true)]
    token: String,
    /// File that holds the app certificate: checks the signature. Fails when it is not good.
    #[arg(long, value_name = "FILE", requires = "uid")]
    certificate_file: Option<PathBuf>,
    /// The user the token is thought to be for. A token holds only a checksum of it.
    #[arg(long)]
    uid: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// A time as it may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    At(u32),
    FromNow(u32),
}

impl When {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let late = "must be before the year 2106";
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self::At).map_err(|_| late);
        }
        if let Some(duration) = parse_duration(text) {
            return u32::try_from(duration.as_secs()).map(Self::FromNow).map_err(|_| late);
        }
        let time: jiff::Timestamp =
            text.parse().map_err(|_| "must be a duration, a time as 2030-01-01T00:00:00Z, or seconds since 1970")?;
        u32::try_from(time.as_second()).map(Self::At).map_err(|_| late)
    }
}

/// Runs the command; `clock` says what time it is.
/// Fails when the certificate cannot be read, the text is no token, or its signature is not good.
pub(super) fn run(args: &TokenArgs, clock: &Clock, out: &mut dyn Write) -> Result<(), CliError> {
    let now = clock.wall_ms().seconds();
    match &args.command {
        TokenCommand::Mint(args) => run_mint(args, now, out),
        TokenCommand::Inspect(args) => run_inspect(args, now, out),
    }
}

fn run_mint(args: &Mint, now: u64, out: &mut dyn Write) -> Result<(), CliError> {
    let certificate = read_certificate(&args.certificate_file)?;
    let late = || CliError::Failed("the time does not fit a token, which ends with the year 2106".into());
    let after = |seconds: u64| now.checked_add(seconds).and_then(|at| u32::try_from(at).ok()).ok_or_else(late);
    let ts = args.ts.map_or_else(|| after(LIFE.as_secs()), Ok)?;
    let expire = match args.privilege_expire {
        None => ts,
        Some(When::At(at)) => at,
        Some(When::FromNow(seconds)) => after(seconds.into())?,
    };
    let random = |_| getrandom::u32().map_err(|why| CliError::Failed(format!("no random bytes: {why}")));
    let salt = args.salt.ok_or(()).or_else(random)?;
    writeln!(out, "{}", mint(&args.app_id, &certificate, &args.uid, salt, ts, expire).expose())?;
    out.flush()?;
    Ok(())
}

fn run_inspect(args: &Inspect, now: u64, out: &mut dyn Write) -> Result<(), CliError> {
    let mut text = args.token.clone();
    if text == "-" {
        text.clear();
        let read = std::io::stdin().take(64 * 1024).read_to_string(&mut text);
        read.map_err(|why| CliError::Failed(format!("cannot read stdin: {}", why.kind())))?;
    }
    let token = parse(text.trim()).map_err(|why| CliError::Failed(format!("not an RTM token: {why}")))?;
    let certificate = args.certificate_file.as_deref().map(read_certificate).transpose()?;
    let signature = match (certificate, &args.uid) {
        (Some(certificate), Some(uid)) => Some(token.signed_by(&certificate, uid)),
        _ => None,
    };
    let found = TokenReport { token, now, account: args.uid.as_deref(), signature };
    if args.json {
        writeln!(out, "{:#}", found.json())?
    } else {
        found.text(out)?
    }
    out.flush()?;
    match signature {
        Some(false) => Err(CliError::Failed("the signature is not that of this certificate and user".into())),
        _ => Ok(()),
    }
}

fn read_certificate(file: &Path) -> Result<Secret, CliError> {
    SecretSource::File(file.to_owned()).read().map_err(|why| {
        // The name is not repeated: it may be the certificate itself, given in the file's place.
        CliError::Failed(match why {
            SecretError::Unreadable { why, .. } => format!("--certificate-file: cannot be read: {why}"),
            _ => "--certificate-file: is empty or is not one line of text".into(),
        })
    })
}

/// What is known of a token.
struct TokenReport<'a> {
    token: Token,
    now: u64,
    account: Option<&'a str>,
    signature: Option<bool>,
}

impl TokenReport<'_> {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let token = &self.token;
        writeln!(out, "version     006")?;
        writeln!(out, "app id      {}", token.app_id)?;
        match token.minted() {
            Some(minted) => writeln!(out, "minted      {}", self.moment(minted))?,
            None => writeln!(out, "minted      before 1970, by the rule that a token lives 24 hours")?,
        }
        let state = if token.alive(self.now) { "valid until" } else { "expired at" };
        writeln!(out, "life        {state} {}", self.moment(token.ts))?;
        writeln!(out, "salt        {}", token.salt)?;
        for privilege in &token.privileges {
            let until = self.moment(privilege.expires);
            writeln!(out, "privilege   {} ({}) until {until}", privilege.id, privilege_name(privilege.id))?;
        }
        let account = match self.account {
            None => "give --uid to compare it",
            Some(uid) if token.fits(uid) => "that of the given uid",
            Some(_) => "NOT that of the given uid",
        };
        writeln!(out, "user        checksum {:08x}: {account}", token.account_crc)?;
        let signature = match self.signature {
            None => "not checked: give --certificate-file and --uid",
            Some(true) => "good",
            Some(false) => "NOT that of this certificate and user",
        };
        writeln!(out, "signature   {signature}")
    }

    fn json(&self) -> serde_json::Value {
        let token = &self.token;
        let privileges = token.privileges.iter().map(|privilege| {
            serde_json::json!({
                "id": privilege.id,
                "name": privilege_name(privilege.id),
                "expires": privilege.expires,
                "expires_at": rfc3339(privilege.expires),
            })
        });
        serde_json::json!({
            "version": "006",
            "app_id": token.app_id.as_str(),
            "salt": token.salt,
            "ts": token.ts,
            "minted_at": token.minted().map(rfc3339),
            "expires_at": rfc3339(token.ts),
            "expired": !token.alive(self.now),
            "user_crc32": token.account_crc,
            "user_matches": self.account.map(|uid| token.fits(uid)),
            "privileges": privileges.collect::<Vec<_>>(),
            "signature": match self.signature {
                None => "unchecked",
                Some(true) => "good",
                Some(false) => "bad",
            },
        })
    }

    /// A time, and how far away it is.
    fn moment(&self, at: u32) -> String {
        let away = |seconds: u64| humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string();
        match u64::from(at).checked_sub(self.now) {
            Some(0) => format!("{} (now)", rfc3339(at)),
            Some(left) => format!("{} (in {})", rfc3339(at), away(left)),
            None => format!("{} ({} ago)", rfc3339(at), away(self.now.saturating_sub(at.into()))),
        }
    }
}

fn privilege_name(id: u16) -> &'static str {
    if id == LOGIN { "log in" } else { "unknown" }
}

fn rfc3339(seconds: u32) -> String {
    jiff::Timestamp::from_second(seconds.into()).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TokenArgs,
    }

    const NOW: u64 = 1_700_000_000;
    const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";
    const APP: &str = "970CA35de60c44645bbae8a215061b33";

    /// Runs a command line; `$CERT` stands for the certificate's file.
    fn token(line: &[&str]) -> (Result<(), CliError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("certificate");
        std::fs::write(&file, CERTIFICATE).unwrap();
        let line = line.iter().map(|word| word.replace("$CERT", file.to_str().unwrap()));
        let args = Line::try_parse_from(std::iter::once("token".to_owned()).chain(line)).unwrap().args;
        let mut out = Vec::new();
        let result = match &args.command {
            TokenCommand::Mint(args) => run_mint(args, NOW, &mut out),
            TokenCommand::Inspect(args) => run_inspect(args, NOW, &mut out),
        };
        (result, String::from_utf8(out).unwrap())
    }

    const MINT: [&str; 7] = ["mint", "--app-id", APP, "--certificate-file", "$CERT", "--uid", "test_user"];

    #[test]
    fn fixed_inputs_print_the_vendors_own_token() {
        let fixed = ["--salt", "1", "--ts", "1111111", "--privilege-expire", "1446455471"];
        let (result, out) = token(&[&MINT[..], &fixed[..]].concat());
        assert!(result.is_ok());
        let want = "006970CA35de60c44645bbae8a215061b33IAAsR0qgiCxv0vrpRcpkz5BrbfEWCBZ6kvR6t7qG/wJIQob86ogAAAAAEAABAAAAR/QQ\
                    AAEA6AOvKDdW\n";
        assert_eq!(out, want);
    }

    #[test]
    fn what_is_minted_now_is_explained_as_valid_for_a_day() {
        let minted = token(&MINT).1;
        let line = ["inspect", minted.trim(), "--certificate-file", "$CERT", "--uid", "test_user"];
        let (result, out) = token(&line);
        assert!(result.is_ok());
        for words in ["valid until 2023-11-15T22:13:20Z (in 1day)", "(log in)", "signature   good", APP, "(now)"] {
            assert!(out.contains(words), "no {words:?} in {out}");
        }
        let json = token(&[&line[..], &["--json"]].concat()).1;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["signature"], &json["expired"], &json["ts"]),
            (&"good".into(), &false.into(), &1_700_086_400.into())
        );
    }

    #[test]
    fn a_privilege_may_end_after_a_while_or_at_a_time() {
        for (when, seconds) in [("1h", 1_700_003_600_u64), ("2023-12-01T00:00:00Z", 1_701_388_800), ("7", 7)] {
            let minted = token(&[&MINT[..], &["--privilege-expire", when]].concat()).1;
            assert_eq!(u64::from(parse(minted.trim()).unwrap().privileges[0].expires), seconds, "{when}");
        }
        assert!(When::parse("soon").is_err() && When::parse("4294967296").is_err() && When::parse("").is_err());
    }

    #[test]
    fn an_old_token_and_a_wrong_user_are_told_in_words() {
        let old = token(&[&MINT[..], &["--ts", "1699999000"]].concat()).1;
        let (result, out) = token(&["inspect", old.trim(), "--certificate-file", "$CERT", "--uid", "other"]);
        assert!(matches!(result, Err(CliError::Failed(_))));
        for words in ["expired at 2023-11-14T21:56:40Z (16m 40s ago)", "NOT that of the given uid", "signature   NOT"] {
            assert!(out.contains(words), "no {words:?} in {out}");
        }
    }

    #[test]
    fn garbage_is_refused_in_words() {
        for (garbage, words) in [("hello", "does not begin with 006"), ("006", "too short"), ("", "006"), ("-x", "006")]
        {
            let (result, out) = token(&["inspect", garbage]);
            assert!(result.unwrap_err().to_string().contains(words), "{garbage}");
            assert_eq!(out, "");
        }
    }
}
