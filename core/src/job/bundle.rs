use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::payload::Payload;
use crate::error::{Error, Result};
use crate::name::Kind;

/// The header of a payload that comes back by itself: after so many milliseconds.
pub(crate) const PUSHED_BACK: &str = "leasehold.push_back_ms";
/// By what a bundle begins; the last letter is its version.
const MAGIC: &[u8; 4] = b"LHB1";
/// What the kind of a bundle's record has beyond that of its payloads.
const SUFFIX: &str = "[]";

/// Many payloads in one record: what a raw queue of the kind *list* keeps.
///
/// ```text
/// LHB1 | length | terms as JSON | length | payload | length | payload ...
/// ```
///
/// Lengths have four bytes, the least first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bundle {
    pub(crate) terms: Terms,
    pub(crate) payloads: Vec<Payload>,
}

/// What holds for each payload alone. The record that carries them has terms of its own: it must outlast all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) max_attempts: u32,
    pub(crate) crash_budget: u32,
    pub(crate) timeout: Option<Duration>,
}

impl Bundle {
    /// The kind of a record that carries payloads of `kind`.
    pub(crate) fn kind(kind: &Kind) -> Result<Kind> {
        Kind::new(format!("{kind}{SUFFIX}"))
    }

    /// How many bytes these terms take before the first payload.
    pub(crate) fn head(terms: &Terms) -> Result<Bytes> {
        let terms = Payload::json(terms)?;
        let mut bytes = BytesMut::with_capacity(MAGIC.len() + 4 + terms.len());
        bytes.put_slice(MAGIC);
        put(&mut bytes, &terms)?;
        Ok(bytes.freeze())
    }

    /// How many bytes a payload takes.
    pub(crate) fn size(payload: &Payload) -> usize {
        payload.len() + 4
    }

    /// The bytes of payloads behind their head.
    pub(crate) fn write(head: &Bytes, payloads: &[Payload]) -> Result<Payload> {
        let size = payloads.iter().map(Self::size).sum::<usize>();
        let mut bytes = BytesMut::with_capacity(head.len() + size);
        bytes.put_slice(head);
        payloads.iter().try_for_each(|payload| put(&mut bytes, payload))?;
        Ok(Payload::from_bytes(bytes.freeze()))
    }

    /// The payloads in these bytes, which are not copied.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if this is no bundle, or one of another version.
    pub(crate) fn read(payload: &Payload) -> Result<Self> {
        let corrupt = || Error::corrupt("this is no bundle of payloads, or one of another version");
        let mut bytes = payload.clone().into_bytes();
        if !bytes.starts_with(MAGIC) {
            return Err(corrupt());
        }
        let _ = bytes.split_to(MAGIC.len());
        let mut part = || {
            let size: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
            let size = usize::try_from(u32::from_le_bytes(size)).ok()?;
            if bytes.len() - 4 < size {
                return None;
            }
            let _ = bytes.split_to(4);
            Some(Payload::from_bytes(bytes.split_to(size)))
        };
        let terms = part().ok_or_else(corrupt)?.parse().map_err(|_| corrupt())?;
        let mut payloads = Vec::new();
        while let Some(payload) = part() {
            payloads.push(payload);
        }
        if bytes.is_empty() { Ok(Self { terms, payloads }) } else { Err(corrupt()) }
    }
}

fn put(bytes: &mut BytesMut, payload: &Payload) -> Result<()> {
    let size = u32::try_from(payload.len()).map_err(|_| Error::invalid("a payload of 4 GiB or more"))?;
    bytes.put_u32_le(size);
    bytes.put_slice(payload.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms =
        Terms { max_attempts: 7, crash_budget: 2, timeout: Some(Duration::from_millis(1_500)) };

    #[test]
    fn comes_back_as_it_was_packed() {
        for payloads in
            [vec![], vec![Payload::EMPTY], vec![vec![0; 3].into(), Payload::EMPTY, vec![255; 70_000].into()]]
        {
            let head = Bundle::head(&TERMS).unwrap();
            let packed = Bundle::write(&head, &payloads).unwrap();
            let size = payloads.iter().map(Bundle::size).sum::<usize>();
            assert_eq!(packed.len(), head.len() + size);
            assert_eq!(Bundle::read(&packed).unwrap(), Bundle { terms: TERMS, payloads });
        }
    }

    #[test]
    fn what_is_no_bundle_is_told() {
        let head = Bundle::head(&TERMS).unwrap();
        let good = Bundle::write(&head, &[vec![1, 2, 3].into()]).unwrap().into_bytes();
        let cut = (0..good.len()).filter(|end| *end != head.len()).map(|end| good.slice(..end));
        let long = [&good[..], b"x"].concat().into();
        for bytes in cut.chain([long, Bytes::from_static(b"{}")]) {
            assert!(Bundle::read(&Payload::from_bytes(bytes.clone())).is_err(), "{bytes:?}");
        }
    }
}
