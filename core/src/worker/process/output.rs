use std::mem;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Tells each line of what `from` says, until it ends. Of a line that has more than `most` bytes so many are told and
/// one more, from which whoever keeps it sees that it is to be marked as cut.
pub(super) async fn lines(mut from: impl AsyncRead + Unpin, most: usize, mut told: impl FnMut(String)) {
    let mut line = Line { bytes: Vec::new(), most: most + 1, begun: false };
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let mut rest = &chunk[..count];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            line.add(&rest[..end]);
            told(line.end());
            rest = &rest[end + 1..];
        }
        line.add(rest);
    }
    if line.begun {
        told(line.end());
    }
}

struct Line {
    bytes: Vec<u8>,
    most: usize,
    begun: bool,
}

impl Line {
    fn add(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        let room = self.most - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn end(&mut self) -> String {
        self.begun = false;
        let bytes = mem::take(&mut self.bytes);
        let text = bytes.strip_suffix(b"\r").unwrap_or(&bytes);
        // Not every store can keep it.
        String::from_utf8_lossy(text).replace('\0', "\u{fffd}")
    }
}

/// Keeps what `from` says in `kept`, up to `most` bytes and one more, and reads the rest for nobody.
pub(super) async fn keep(mut from: impl AsyncRead + Unpin, most: usize, kept: &mut Vec<u8>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let room = (most + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..room.min(count)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(said: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        lines(said, 4, |line| all.push(line)).await;
        all
    }

    #[tokio::test]
    async fn every_line_is_told_and_long_ones_are_cut() {
        assert_eq!(told(b"").await, [""; 0]);
        assert_eq!(told(b"a\n\nb\r\nlast").await, ["a", "", "b", "last"]);
        assert_eq!(told(b"123456789\n12").await, ["12345", "12"]);
        assert_eq!(told(b"\xff\0\n").await, ["\u{fffd}\u{fffd}"]);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_tells_that_it_is_too_much() {
        let mut kept = Vec::new();
        keep(&b"123456789"[..], 4, &mut kept).await;
        assert_eq!(kept, b"12345");
    }
}
