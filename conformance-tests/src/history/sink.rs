use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::event::Event;

/// Where a process writes its history.
pub trait Sink: Send + Sync {
    /// Writes one event, at once and for good.
    ///
    /// # Errors
    /// That it could not be written.
    fn write(&self, event: &Event) -> io::Result<()>;
}

/// A history in a file of JSON Lines, of one process: opened for appending, one `write(2)` per event and no
/// buffer, so that what was written outlives the process, however it ends.
#[derive(Debug)]
pub struct FileSink(File);

impl FileSink {
    /// Appends to this file, and makes it if it is not there.
    ///
    /// # Errors
    /// Those of opening a file.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }
}

impl Sink for FileSink {
    fn write(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let written = (&self.0).write(&line)?;
        if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// A history in memory, of any number of recorders of one process. Clones are the same history.
#[derive(Debug, Clone, Default)]
pub struct MemorySink(Arc<Mutex<Vec<Event>>>);

impl MemorySink {
    /// What was written so far, in order.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sort(&mut events);
        events
    }
}

impl Sink for MemorySink {
    fn write(&self, event: &Event) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        Ok(())
    }
}

/// Joins the histories of several processes into one, by time.
///
/// The last line of a file may be cut off, since its process may have been killed while it wrote: then the
/// event counts as one that did not happen. It is the beginning of a call that was never made, or the answer to
/// one of which nothing is known now.
///
/// # Errors
/// Those of reading the files, and [`InvalidData`](io::ErrorKind::InvalidData) for a line that is no event.
pub fn read_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for path in paths {
        let text = std::fs::read(path.as_ref())?;
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        // What follows the last line's end: nothing, or a line that was cut off.
        lines.pop();
        for (i, line) in lines.into_iter().enumerate() {
            let wrong = |error| {
                let place = format!("{}:{}: {error}", path.as_ref().display(), i + 1);
                io::Error::new(io::ErrorKind::InvalidData, place)
            };
            events.push(serde_json::from_slice(line).map_err(wrong)?);
        }
    }
    sort(&mut events);
    Ok(events)
}

fn sort(events: &mut [Event]) {
    events.sort_by_key(|event| (event.t, event.rank()));
}
