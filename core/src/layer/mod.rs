//! What stands between a caller and a store, whatever the store: each layer wraps a [`Backend`] and is one.
//!
//! [`standard`] is the stack that every handle uses, from the outside in:
//! [`Check`] refuses bad input before the store is touched, [`Trace`] makes spans and metrics of every call,
//! [`Retry`] repeats what failed for a moment, [`Bound`] ends what did not answer by its deadline.

mod bound;
#[cfg(feature = "testing")]
mod chaos;
pub(crate) mod check;
#[cfg(feature = "testing")]
mod cuts;
mod retry;
mod trace;

use std::sync::Arc;

pub use bound::Bound;
#[cfg(feature = "testing")]
pub use chaos::{Chaos, Faults};
pub use check::Check;
#[cfg(feature = "testing")]
pub use cuts::Cuts;
pub use retry::Retry;
pub use trace::Trace;

use crate::backend::Backend;
use crate::limits::Limits;

/// The stack that every handle puts in front of its store.
pub fn standard(backend: Arc<dyn Backend>, limits: Limits) -> Arc<dyn Backend> {
    Arc::new(Check::new(Arc::new(Trace::new(Arc::new(Retry::new(Arc::new(Bound::new(backend)))))), limits))
}

/// The methods of the contract, by name.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumIter,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "each is the contract's method of that name")]
pub enum Operation {
    Describe,
    Setup,
    Now,
    Enqueue,
    Admit,
    Claim,
    Renew,
    Settle,
    Expired,
    Recover,
    AppendLogs,
    ReadLogs,
    Find,
    List,
    Counts,
    Amend,
    SetQueue,
    Queues,
    Prune,
    CheckIn,
    Workers,
    StopWorkers,
    PutRegister,
    Registers,
    DeleteRegister,
    Watch,
}

impl Operation {
    /// The method's name.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it may change the store, so that without an answer its effect is unknown (clause E1).
    pub fn writes(self) -> bool {
        !matches!(
            self,
            Self::Describe
                | Self::Now
                | Self::ReadLogs
                | Self::Find
                | Self::List
                | Self::Counts
                | Self::Queues
                | Self::Workers
                | Self::Registers
                | Self::Watch
        )
    }
}

/// Implements [`Backend`] for a layer whose every method does the same around the inner call:
/// `self.around(operation, deadline, request, |backend, deadline, request| inner call)`.
///
/// The list of methods stands here once, so that a new method of the contract cannot be forgotten in a layer:
/// the trait has no default bodies. It is for the crates of this workspace, and no part of what is promised.
#[doc(hidden)]
#[macro_export]
macro_rules! around {
    ($layer:ty) => {
        $crate::around! { @impl $layer;
            Describe describe() -> $crate::backend::Description;
            Setup setup() -> ();
            Now now() -> $crate::Timestamp;
            Enqueue enqueue($crate::backend::Enqueue) -> Vec<$crate::backend::Enqueued>;
            Admit admit($crate::backend::Admit) -> Vec<$crate::backend::Admitted>;
            Claim claim($crate::backend::Claim) -> $crate::backend::Claimed;
            Renew renew($crate::backend::Renew) -> Vec<$crate::backend::Renewed>;
            Settle settle($crate::backend::Settle) -> Vec<$crate::backend::Answer>;
            Expired expired($crate::backend::Expired) -> Vec<$crate::backend::ExpiredLease>;
            Recover recover($crate::backend::Recover) -> Vec<$crate::backend::Answer>;
            AppendLogs append_logs($crate::backend::AppendLogs) -> Vec<$crate::backend::Answer>;
            ReadLogs read_logs($crate::backend::ReadLogs) -> $crate::backend::LogPage;
            Find find($crate::backend::Find) -> Vec<Option<$crate::JobRecord>>;
            List list($crate::backend::List) -> $crate::backend::Page;
            Counts counts($crate::backend::Counts) -> Vec<$crate::backend::QueueCounts>;
            Amend amend($crate::backend::Amend) -> $crate::backend::Amended;
            SetQueue set_queue($crate::backend::SetQueue) -> ();
            Queues queues() -> Vec<$crate::backend::QueueRecord>;
            Prune prune($crate::backend::Prune) -> $crate::backend::Pruned;
            CheckIn check_in($crate::backend::CheckIn) -> $crate::backend::CheckedIn;
            Workers workers($crate::backend::Workers) -> Vec<$crate::backend::WorkerRecord>;
            StopWorkers stop_workers($crate::backend::StopWorkers) -> u64;
            PutRegister put_register($crate::backend::PutRegister) -> ();
            Registers registers($crate::backend::Registers) -> $crate::backend::RegisterPage;
            DeleteRegister delete_register($crate::backend::DeleteRegister) -> bool;
            Watch watch($crate::backend::Watch) -> futures::stream::BoxStream<'static, $crate::backend::Event>;
        }
    };
    (@impl $layer:ty; $($variant:ident $method:ident($($request:ty)?) -> $answer:ty;)*) => {
        #[async_trait::async_trait]
        impl $crate::backend::Backend for $layer {
            $(async fn $method(
                &self, deadline: $crate::Deadline $(, request: $request)?
            ) -> $crate::Result<$answer> {
                let call = |request, deadline| {
                    let _: &_ = &request;
                    self.inner.$method(deadline $(, $crate::around!(@of request, $request))?)
                };
                let request = ($($crate::around!(@of request, $request))?);
                self.around($crate::layer::Operation::$variant, deadline, request, call).await
            })*
        }
    };
    (@of $value:ident, $type:ty) => {
        $value
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray;

    #[test]
    fn operations_are_named_like_their_methods() {
        assert_eq!(Operation::AppendLogs.name(), "append_logs");
        assert_eq!(Operation::VARIANTS.len(), 26);
        assert!(Operation::Claim.writes() && !Operation::Counts.writes());
    }
}
