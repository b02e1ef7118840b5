//! The cases, one file per area of the contract. Each file begins with its table.

mod consuming;
mod fencing;
mod producing;

use crate::case::Case;

/// Every table, in the order of the contract.
pub(crate) const TABLES: &[&[Case]] = &[producing::CASES, consuming::CASES, fencing::CASES];
