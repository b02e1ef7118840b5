//! What changes in a job's document when it leaves a state: one place for settlements and amendments (clauses S1,
//! F5, P4).

use leasehold_core::Reason;
use leasehold_core::limits::SPAN;
use mongodb::bson::{Bson, Document, doc};

use crate::record::{FOR_A_PERIOD, OFF_TURN, WAITING};
use crate::session::{Db, millis};

/// What a job becomes.
pub(crate) enum Next {
    /// It ends.
    Ends {
        /// `succeeded`, `failed` or `cancelled`.
        state: &'static str,
        reason: Option<Reason>,
    },
    /// It waits until it is due, an expression.
    Waits { reason: Reason, due: Bson },
    /// The server works it out from the job as it is: all three are expressions.
    Depends { state: Document, reason: Document, due: Bson },
}

impl Next {
    pub(crate) fn ends(state: &'static str, reason: Reason) -> Self {
        Self::Ends { state, reason: Some(reason) }
    }
}

const REMOVE: &str = "$$REMOVE";

/// The stages of an update that changes a job so, and its other fields besides.
pub(crate) fn stages(db: &Db, next: Next, fields: Document) -> Vec<Document> {
    let mut set = doc! {"claim": REMOVE, "lease_until": REMOVE, "cancel_requested": false};
    let mut stages = Vec::with_capacity(3);
    match next {
        Next::Ends { state, reason } => {
            let keeps_key = doc! {"$eq": ["$unique_scope", FOR_A_PERIOD]};
            set.extend(doc! {
                "state": state,
                "reason": reason.map_or(REMOVE.into(), |reason| reason.to_string()),
                "finished_at": db.now(),
                "expires_at": until(db, format!("$keep.{state}").into()),
                "unique_key": {"$cond": [keeps_key, "$unique_key", REMOVE]},
                OFF_TURN: REMOVE,
            });
        }
        Next::Waits { reason, due } => set.extend(doc! {
            "state": WAITING, "reason": reason.to_string(), "due": due, OFF_TURN: true, "finished_at": REMOVE,
            "expires_at": REMOVE,
        }),
        Next::Depends { state, reason, due } => {
            // Worked out first, from the job as it is.
            stages.push(doc! {"$set": {"next": {"state": state, "reason": reason, "due": due}}});
            set.extend(depending(db));
        }
    }
    set.extend(fields);
    let depends = !stages.is_empty();
    stages.push(doc! {"$set": set});
    if depends {
        stages.push(doc! {"$unset": "next"});
    }
    stages
}

fn depending(db: &Db) -> Document {
    let waits = || doc! {"$eq": ["$next.state", WAITING]};
    let keep = doc! {"$switch": {"branches": [
        {"case": {"$eq": ["$next.state", "succeeded"]}, "then": "$keep.succeeded"},
        {"case": {"$eq": ["$next.state", "failed"]}, "then": "$keep.failed"},
    ], "default": "$keep.cancelled"}};
    let keeps_key = doc! {"$or": [waits(), {"$eq": ["$unique_scope", FOR_A_PERIOD]}]};
    doc! {
        "state": "$next.state",
        "reason": "$next.reason",
        "due": {"$cond": [waits(), "$next.due", "$due"]},
        OFF_TURN: {"$cond": [waits(), true, REMOVE]},
        "finished_at": {"$cond": [waits(), REMOVE, db.now()]},
        "expires_at": {"$cond": [waits(), REMOVE, until(db, keep.into())]},
        "unique_key": {"$cond": [keeps_key, "$unique_key", REMOVE]},
    }
}

/// What a field counts; nothing if it is no number, as in a record that somebody damaged (clause B3).
pub(crate) fn count(field: &str) -> Document {
    doc! {"$cond": [{"$isNumber": field}, field, 0]}
}

/// Until when an ended job is kept, given for how many milliseconds; negative is for ever, and so is what a damaged
/// record has there (clause B3).
fn until(db: &Db, keep: Bson) -> Document {
    let is_span = doc! {"$and": [
        {"$isNumber": "$$keep"}, {"$gte": ["$$keep", 0]}, {"$lte": ["$$keep", millis(SPAN)]},
    ]};
    let kept = doc! {"$cond": [is_span, {"$add": [db.now(), "$$keep"]}, REMOVE]};
    doc! {"$let": {"vars": {"keep": keep}, "in": kept}}
}
