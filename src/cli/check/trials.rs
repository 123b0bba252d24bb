//! What `serve` will need of this machine, tried: addresses, the store's folder, open files.
//!
//! Invariants: nothing is left behind, and nothing that runs is disturbed. What a running gateway holds is a warning:
//! it may be the one whose configuration is checked.

use std::collections::BTreeSet;

use crate::config::finding::Finding;
use crate::config::{Config, Listen, UnixOwner};
use crate::server::listener;
use crate::store;
use crate::store::embedded::Options;

/// What was found, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct TrialReport {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// Tries everything.
pub(super) fn all(config: &Config) -> TrialReport {
    let mut tried = TrialReport::default();
    for (n, listen) in config.server.listen.iter().enumerate() {
        tried.address(&format!("server.listen[{n}]"), listen, config.server.unix_owner);
    }
    tried.address("admin.listen", &config.admin.listen, UnixOwner::default());
    tried.sockets(config);
    tried.folder(config);
    tried.files(config);
    tried
}

impl TrialReport {
    fn address(&mut self, path: &str, listen: &Listen, owner: UnixOwner) {
        match listener::availability(listen, owner) {
            Ok(listener::Availability::Free) => {}
            Ok(listener::Availability::Taken) => self.warnings.push(finding(
                path,
                format!("another process listens on {listen}"),
                "That is as it should be if it is this gateway",
            )),
            Err(why) => self.faults.push(finding(
                path,
                format!("cannot be listened on ({listen}): {why}"),
                "Write an address or a path that this machine and this user can have",
            )),
        }
    }

    /// Whether no two sockets have one place, and none a place of the store's, however they are written.
    fn sockets(&mut self, config: &Config) {
        let listen = config.server.listen.iter().enumerate();
        let listen = listen.map(|(n, listen)| (format!("server.listen[{n}]"), listen));
        let mut places = BTreeSet::new();
        for (path, listen) in listen.chain([("admin.listen".to_owned(), &config.admin.listen)]) {
            let Listen::Unix(socket) = listen else { continue };
            let Some(place) = listener::canonical_path(socket) else { continue };
            let mend = "Give each a path of its own";
            if store::embedded::is_in_the_way(&config.store.path, &place) {
                self.faults.push(finding(&path, "is a path that the store needs", mend));
            }
            if !places.insert(place) {
                self.faults.push(finding(&path, "is another listener's path, written in another way", mend));
            }
        }
    }

    fn folder(&mut self, config: &Config) {
        let reserve = Options::default().reserve;
        match store::embedded::trial(&config.store.path, reserve) {
            Ok(store::embedded::Trial::Fits) => {}
            Ok(store::embedded::Trial::InUse) => self.warnings.push(finding(
                "store.path",
                "is in use by another gateway",
                "That is as it should be if it is this gateway",
            )),
            Ok(store::embedded::Trial::NoRoom(free)) => self.warnings.push(finding(
                "store.path",
                format!("has {free} bytes free, and {reserve} are kept in reserve: no events would be read"),
                "Make room",
            )),
            Err(why) => self.faults.push(finding(
                "store.path",
                format!("cannot hold the store: {why}"),
                "Name a folder that this user can write, or one that can be made",
            )),
        }
    }

    fn files(&mut self, config: &Config) {
        let (wanted, most) = (config.server.max_connections, crate::server::descriptors::most());
        if most < wanted {
            self.warnings.push(finding(
                "server.max_connections",
                format!("is {wanted}, and this process may open {most} files"),
                "Raise the limit of open files (ulimit -n, LimitNOFILE)",
            ));
        }
    }
}

fn finding(path: &str, what: impl Into<String>, mend: &str) -> Finding {
    Finding { path: path.to_owned(), line: None, column: None, what: what.into(), mend: mend.to_owned() }
}
