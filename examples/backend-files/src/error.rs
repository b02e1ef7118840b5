use std::io;

use leasehold_core::{Error, ErrorKind};

/// An error of a file where nothing was written: the call had no effect.
pub(crate) fn unavailable(error: io::Error) -> Error {
    let (kind, why) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::Incompatible, "there is no journal; call `setup` first"),
        io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "give this process the right to write there"),
        io::ErrorKind::StorageFull => (ErrorKind::Full, "make room on the disk"),
        _ => (ErrorKind::Unavailable, "the folder cannot be used now"),
    };
    Error::new(kind, format!("{why}: {error}")).caused_by(error)
}

/// An error of a write that may be there (clause E1).
pub(crate) fn unknown(error: io::Error) -> Error {
    Error::new(ErrorKind::Unknown, format!("the journal may not have been written: {error}")).caused_by(error)
}
