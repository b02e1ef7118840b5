//! The file: a first line that names it, then one line per operation: a checksum and the changes as JSON.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use leasehold_core::{Error, ErrorKind, Result, fail_point};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{unavailable, unknown};
use crate::schema::{Change, Tables};

/// The version of the format. A newer one is refused (clause B4).
const VERSION: u32 = 1;
/// How much of a journal may be outdated before it is written anew, beside as much again as it began with.
const SLACK: u64 = 4 << 20;
/// How often whoever waits for the lock looks again. Operating systems offer no wait that ends in time.
const LOOK: Duration = Duration::from_millis(1);

/// The first line. A journal that was written anew has another id, by which its readers know that they must begin
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    leasehold_files: u32,
    id: Uuid,
}

/// What a process knows of a journal.
pub(crate) struct Journal {
    file: File,
    head: Head,
    /// Up to where it was read.
    read: u64,
    /// How long it was when it was written anew: up to the end of its first changes, which made all of its tables.
    base: u64,
    pub(crate) tables: Tables,
}

/// Waits for the lock, which ends with the file or with the process, however that ends. Dropping the future while
/// it waits leaves nothing behind.
pub(crate) async fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(unavailable)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
    }
}

impl Journal {
    /// Opens the journal of a folder, and makes it if there is none.
    pub(crate) fn open_or_make(folder: &Path) -> Result<Self> {
        // An error is no answer: a journal that cannot be seen now must not be replaced by an empty one.
        if !folder.join("journal").try_exists().map_err(unavailable)? {
            write_anew(folder, &Tables::default()).map_err(unavailable)?;
        }
        Self::open(folder, None)
    }

    /// Opens the journal of a folder and reads what is new since `known` was read.
    pub(crate) fn open(folder: &Path, known: Option<Self>) -> Result<Self> {
        let open = OpenOptions::new().read(true).append(true).open(folder.join("journal"));
        let mut reader = BufReader::new(open.map_err(unavailable)?);
        let mut first = Vec::new();
        reader.read_until(b'\n', &mut first).map_err(unavailable)?;
        let head = head(&first)?;
        let (read, base, tables) = match known {
            Some(known) if known.head == head => (known.read, known.base, known.tables),
            _ => {
                // Whoever put it in place may have died before that was on the disk, and nothing may be written to a
                // file that a loss of power takes away.
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(unavailable)?;
                (first.len() as u64, 0, Tables::default())
            }
        };
        reader.seek(SeekFrom::Start(read)).map_err(unavailable)?;
        let file = reader.get_ref().try_clone().map_err(unavailable)?;
        let mut journal = Self { file, head, read, base, tables };
        journal.read_on(reader)?;
        Ok(journal)
    }

    fn read_on(&mut self, mut reader: BufReader<File>) -> Result<()> {
        let (begin, mut line) = (self.read, Vec::new());
        while reader.read_until(b'\n', &mut line).map_err(unavailable)? > 0 {
            let Some(changes) = checked(&line) else {
                if !reader.fill_buf().map_err(unavailable)?.is_empty() {
                    let why = format!("the journal is damaged at byte {}; restore a copy", self.read);
                    return Err(Error::new(ErrorKind::Corrupt, why));
                }
                // Whoever wrote the last line died before it was whole, so nobody was told of it.
                self.file.set_len(self.read).map_err(unavailable)?;
                break;
            };
            self.tables.replay(changes)?;
            self.read += line.len() as u64;
            if self.base == 0 {
                self.base = self.read;
            }
            line.clear();
        }
        // Whoever wrote this may have died before it was on the disk, and whoever reads it may tell of it.
        if self.read > begin { self.file.sync_data().map_err(unavailable) } else { Ok(()) }
    }

    /// Writes down what an operation changed, all or nothing, so that it outlives the loss of power.
    pub(crate) fn commit(&mut self, folder: &Path) -> Result<()> {
        let changes = std::mem::take(&mut self.tables.changes);
        if changes.is_empty() {
            return Ok(());
        }
        let line = line(&changes)?;
        if let Err(error) = write(&self.file, &line) {
            let undone = self.file.set_len(self.read).and_then(|()| self.file.sync_data());
            return Err(if undone.is_ok() { unavailable(error) } else { unknown(error) });
        }
        self.read += line.len() as u64;
        if self.read > 2 * self.base + SLACK {
            // What was asked for is done and stands in both journals; one that stays long does no harm.
            let _ = write_anew(folder, &self.tables);
        }
        Ok(())
    }
}

/// Writes a journal that says only what the tables hold, and puts it in place of the old one. Whoever opens it sees
/// to it that it stays there.
fn write_anew(folder: &Path, tables: &Tables) -> io::Result<()> {
    let path = folder.join("journal.new");
    let head = Head { leasehold_files: VERSION, id: Uuid::new_v4() };
    let mut text = serde_json::to_vec(&head)?;
    text.push(b'\n');
    text.extend(line(&tables.all()).map_err(io::Error::other)?);
    let mut file = File::create(&path)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(path, folder.join("journal"))
}

/// Writes a line so that it outlives the loss of power; in two parts, so that a test can end the process in between.
fn write(mut file: &File, line: &[u8]) -> io::Result<()> {
    let (begin, rest) = line.split_at(line.len() / 2);
    fail_point!("commit::before_write");
    file.write_all(begin)?;
    fail_point!("commit::half_written");
    file.write_all(rest)?;
    fail_point!("commit::written");
    file.sync_data()?;
    fail_point!("commit::synced");
    Ok(())
}

fn head(line: &[u8]) -> Result<Head> {
    let not_ours = |_| Error::new(ErrorKind::Incompatible, "the file `journal` is not one of this backend");
    let head: Head = serde_json::from_slice(line).map_err(not_ours)?;
    if head.leasehold_files > VERSION {
        let why = "the journal is of a newer version; take a newer program";
        return Err(Error::new(ErrorKind::Incompatible, why));
    }
    Ok(head)
}

fn line(changes: &[Change]) -> Result<Vec<u8>> {
    let json = serde_json::to_string(changes)
        .map_err(|e| Error::new(ErrorKind::Internal, "a change cannot be written as JSON").caused_by(e))?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

/// The changes on a line, if it is whole.
fn checked(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, json) = line.split_once(' ')?;
    (u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json.as_bytes())).then_some(json)
}
