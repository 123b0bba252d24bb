//! The candidates behind one small trait: a commit of records that returns once they are on stable storage, a read
//! of a key range, a deletion of the oldest. Each with a 16 MiB cache.

use std::path::Path;
use std::sync::Mutex;

const CACHE: usize = 16 << 20;

/// A record: the log it belongs to, its key (the number of its last event) and its bytes.
pub struct Record {
    pub log: u32,
    pub key: u64,
    pub value: Vec<u8>,
}

pub trait Engine: Send + Sync {
    /// Writes all, synced.
    fn commit(&self, records: &[Record]);
    /// Values of keys `from..`, oldest first, until `enough` says so.
    fn read(&self, log: u32, from: u64, enough: &mut dyn FnMut(u64, &[u8]) -> bool);
    /// Deletes at most `most` of the oldest records with keys up to `to`, synced; how many.
    fn delete(&self, log: u32, to: u64, most: usize) -> usize;
    fn last(&self, log: u32) -> Option<u64>;
}

pub const NAMES: [&str; 4] = ["redb", "redb-quick-repair", "fjall", "sqlite"];

pub fn open(name: &str, folder: &Path) -> Box<dyn Engine> {
    match name {
        "redb" => Box::new(Redb::open(folder, false)),
        "redb-quick-repair" => Box::new(Redb::open(folder, true)),
        "fjall" => Box::new(Fjall::open(folder)),
        "sqlite" => Box::new(Sqlite::open(folder)),
        other => panic!("no engine {other}"),
    }
}

struct Redb {
    db: redb::Database,
    quick: bool,
}

const TABLE: redb::TableDefinition<(u32, u64), &[u8]> = redb::TableDefinition::new("records");

impl Redb {
    fn open(folder: &Path, quick: bool) -> Self {
        let db = redb::Database::builder().set_cache_size(CACHE).create(folder.join("redb")).unwrap();
        let this = Self { db, quick };
        let tx = this.begin();
        tx.open_table(TABLE).unwrap();
        tx.commit().unwrap();
        this
    }

    fn begin(&self) -> redb::WriteTransaction {
        let mut tx = self.db.begin_write().unwrap();
        tx.set_quick_repair(self.quick);
        tx
    }
}

impl Engine for Redb {
    fn commit(&self, records: &[Record]) {
        let tx = self.begin();
        {
            let mut table = tx.open_table(TABLE).unwrap();
            for r in records {
                table.insert((r.log, r.key), r.value.as_slice()).unwrap();
            }
        }
        tx.commit().unwrap();
    }

    fn read(&self, log: u32, from: u64, enough: &mut dyn FnMut(u64, &[u8]) -> bool) {
        use redb::{ReadableDatabase, ReadableTable};
        let tx = self.db.begin_read().unwrap();
        let table = tx.open_table(TABLE).unwrap();
        let range = ReadableTable::range(&table, (log, from)..=(log, u64::MAX)).unwrap();
        for entry in range {
            let (key, value) = entry.unwrap();
            if enough(key.value().1, value.value()) {
                return;
            }
        }
    }

    fn delete(&self, log: u32, to: u64, most: usize) -> usize {
        use redb::ReadableTable;
        let tx = self.begin();
        let mut n = 0;
        {
            let mut table = tx.open_table(TABLE).unwrap();
            let keys: Vec<u64> = ReadableTable::range(&table, (log, 0)..=(log, to))
                .unwrap()
                .take(most)
                .map(|e| e.unwrap().0.value().1)
                .collect();
            for key in keys {
                table.remove((log, key)).unwrap();
                n += 1;
            }
        }
        tx.commit().unwrap();
        n
    }

    fn last(&self, log: u32) -> Option<u64> {
        use redb::{ReadableDatabase, ReadableTable};
        let tx = self.db.begin_read().unwrap();
        let table = tx.open_table(TABLE).unwrap();
        let mut range = ReadableTable::range(&table, (log, 0)..=(log, u64::MAX)).unwrap();
        range.next_back().map(|e| e.unwrap().0.value().1)
    }
}

struct Fjall {
    db: fjall::Database,
    records: fjall::Keyspace,
}

impl Fjall {
    fn open(folder: &Path) -> Self {
        let db =
            fjall::Database::builder(folder.join("fjall")).cache_size(CACHE as u64).worker_threads(1).open().unwrap();
        let records =
            db.keyspace("records", || fjall::KeyspaceCreateOptions::default().max_memtable_size(CACHE as u64)).unwrap();
        Self { db, records }
    }
}

fn key(log: u32, key: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&log.to_be_bytes());
    bytes[4..].copy_from_slice(&key.to_be_bytes());
    bytes
}

fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[4..].try_into().unwrap())
}

impl Engine for Fjall {
    fn commit(&self, records: &[Record]) {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncAll));
        for r in records {
            batch.insert(&self.records, key(r.log, r.key), r.value.as_slice());
        }
        batch.commit().unwrap();
    }

    fn read(&self, log: u32, from: u64, enough: &mut dyn FnMut(u64, &[u8]) -> bool) {
        for guard in self.records.range(key(log, from)..=key(log, u64::MAX)) {
            let (key, value) = guard.into_inner().unwrap();
            if enough(number(&key), &value) {
                return;
            }
        }
    }

    fn delete(&self, log: u32, to: u64, most: usize) -> usize {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncAll));
        let mut n = 0;
        for guard in self.records.range(key(log, 0)..=key(log, to)).take(most) {
            batch.remove(&self.records, guard.key().unwrap());
            n += 1;
        }
        batch.commit().unwrap();
        n
    }

    fn last(&self, log: u32) -> Option<u64> {
        let mut range = self.records.range(key(log, 0)..=key(log, u64::MAX));
        range.next_back().map(|guard| number(&guard.key().unwrap()))
    }
}

struct Sqlite {
    writer: Mutex<rusqlite::Connection>,
    reader: Mutex<rusqlite::Connection>,
}

impl Sqlite {
    fn open(folder: &Path) -> Self {
        let connect = || {
            let c = rusqlite::Connection::open(folder.join("sqlite")).unwrap();
            c.execute_batch(&format!(
                "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-{};
                 CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
                CACHE / 1024 / 2
            ))
            .unwrap();
            Mutex::new(c)
        };
        Self { writer: connect(), reader: connect() }
    }
}

fn id(log: u32, key: u64) -> i64 {
    (i64::from(log) << 48) | key.min((1 << 48) - 1) as i64
}

impl Engine for Sqlite {
    fn commit(&self, records: &[Record]) {
        let mut c = self.writer.lock().unwrap();
        let tx = c.transaction().unwrap();
        {
            let mut insert = tx.prepare_cached("INSERT INTO records VALUES (?1, ?2)").unwrap();
            for r in records {
                insert.execute((id(r.log, r.key), &r.value)).unwrap();
            }
        }
        tx.commit().unwrap();
    }

    fn read(&self, log: u32, from: u64, enough: &mut dyn FnMut(u64, &[u8]) -> bool) {
        let c = self.reader.lock().unwrap();
        let mut select =
            c.prepare_cached("SELECT id, value FROM records WHERE id BETWEEN ?1 AND ?2 ORDER BY id").unwrap();
        let mut rows = select.query((id(log, from), id(log, u64::MAX))).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let key = row.get::<_, i64>(0).unwrap() as u64 & ((1 << 48) - 1);
            if enough(key, row.get_ref(1).unwrap().as_blob().unwrap()) {
                return;
            }
        }
    }

    fn delete(&self, log: u32, to: u64, most: usize) -> usize {
        let c = self.writer.lock().unwrap();
        let sql =
            "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3)";
        c.prepare_cached(sql).unwrap().execute((id(log, 0), id(log, to), most as i64)).unwrap()
    }

    fn last(&self, log: u32) -> Option<u64> {
        let c = self.reader.lock().unwrap();
        let max: Option<i64> = c
            .query_row("SELECT MAX(id) FROM records WHERE id BETWEEN ?1 AND ?2", (id(log, 0), id(log, u64::MAX)), |r| {
                r.get(0)
            })
            .unwrap();
        max.map(|id| id as u64 & ((1 << 48) - 1))
    }
}
