//! The cases, one file per area of the contract. Each file begins with its table.

#![deny(dead_code, reason = "a case that is missing in its table would never run")]

mod consuming;
mod fencing;
mod limiting;
mod producing;
mod selecting;
mod uniqueness;

use crate::case::Case;

/// Every table, in the order of the contract.
pub(crate) const TABLES: &[&[Case]] = &[
    producing::CASES,
    uniqueness::CASES,
    consuming::CASES,
    selecting::CASES,
    limiting::CASES,
    fencing::CASES,
];
