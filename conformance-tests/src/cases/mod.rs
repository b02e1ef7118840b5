//! The cases, one file per area of the contract. Each file begins with its table.

#![deny(dead_code, reason = "a case that is missing in its table would never run")]

mod parking;
mod producing;
mod replacing;
mod uniqueness;

mod consuming;
mod limiting;
mod overflowing;
mod selecting;

mod elsewhere;
mod fencing;
mod living;
mod recovering;
mod settling;
mod stepping;

mod logs;
mod moving;
mod withdrawing;

mod controlling;
mod fleet;
pub(crate) mod flows;
mod inspecting;
mod registers;
mod schedules;
mod sharing;

mod calls;
mod events;
mod failing;
mod races;
pub(crate) mod raw;
mod refusing;
mod sequences;
mod working;

mod crashes;
mod pauses;
mod processes;

use crate::case::Case;

/// Every table, in the order of the contract.
pub(crate) const TABLES: &[&[Case]] = &[
    producing::CASES,
    uniqueness::CASES,
    replacing::CASES,
    parking::CASES,
    consuming::CASES,
    selecting::CASES,
    limiting::CASES,
    overflowing::CASES,
    fencing::CASES,
    settling::CASES,
    elsewhere::CASES,
    living::CASES,
    recovering::CASES,
    stepping::CASES,
    logs::CASES,
    moving::CASES,
    withdrawing::CASES,
    inspecting::CASES,
    controlling::CASES,
    fleet::CASES,
    registers::CASES,
    schedules::CASES,
    sharing::CASES,
    flows::CASES,
    events::CASES,
    calls::CASES,
    failing::CASES,
    refusing::CASES,
    working::CASES,
    races::CASES,
    raw::CASES,
    sequences::CASES,
    processes::CASES,
    crashes::CASES,
    pauses::CASES,
];
