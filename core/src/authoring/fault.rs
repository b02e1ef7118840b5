/// Declares `Fault`, what goes wrong inside an operation before it is told to the caller, and `Done`, the result of a
/// part of an operation: `leasehold_core::fault!(driver::Error);` with the driver's type of errors.
///
/// A fault keeps the driver's error as it is, because an operation may still look at it, and because what it means
/// depends on how far the call had come. Mapping it to an [`Error`](crate::Error) is left to the backend.
///
/// It is a macro because the language lets only the backend's own crate say that `?` makes one type of both its driver's
/// errors and ours.
#[macro_export]
macro_rules! fault {
    ($driver:ty) => {
        /// What goes wrong inside an operation, before it is told to the caller.
        #[derive(Debug)]
        pub(crate) enum Fault {
            /// The driver's or the server's, not yet mapped.
            Driver($driver),
            /// Ours.
            Ours($crate::Error),
        }

        /// The result of a part of an operation.
        pub(crate) type Done<T> = Result<T, Fault>;

        impl From<$driver> for Fault {
            fn from(error: $driver) -> Self {
                Self::Driver(error)
            }
        }

        impl From<$crate::Error> for Fault {
            fn from(error: $crate::Error) -> Self {
                Self::Ours(error)
            }
        }

        impl From<$crate::authoring::JsonError> for Fault {
            fn from(error: $crate::authoring::JsonError) -> Self {
                let why = "a value cannot be written as JSON";
                Self::Ours($crate::Error::new($crate::ErrorKind::Internal, why).caused_by(error))
            }
        }
    };
}
