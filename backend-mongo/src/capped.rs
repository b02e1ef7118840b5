//! Keeps two collections capped, whatever becomes of them: that of the log lines and that of the signals.
//!
//! Anybody may drop them, convert them, or lose their indexes by converting them. A plain insert into one that was
//! dropped makes an ordinary one. So each is looked at when the store is set up, when a reader finds it odd, and now
//! and then while lines are added.

use futures::TryStreamExt;
use mongodb::bson::doc;
use mongodb::options::CreateCollectionOptions;

use crate::error::{DUPLICATE, Done, code};
use crate::schema;
use crate::session::{Db, Kept};

/// How large the collection of signals may grow before the oldest go.
const SIGNALS_BYTES: i64 = 1 << 20;
/// The server keeps sizes in whole multiples of this.
const STEP: i64 = 256;

/// Makes a collection capped and indexed if it is not. Any number of processes may do so at once.
pub(crate) async fn mend(db: &Db, kept: Kept) -> Done<()> {
    keep(db, kept, false).await
}

/// The same, and gives the collection the configured size.
pub(crate) async fn set_up(db: &Db, kept: Kept) -> Done<()> {
    keep(db, kept, true).await
}

async fn keep(db: &Db, kept: Kept, resize: bool) -> Done<()> {
    let bytes = size(db, kept);
    match found(db, kept).await? {
        None => schema::create(db, kept, doc! {"capped": true, "size": bytes}).await?,
        Some(options) if options.capped != Some(true) => {
            tracing::warn!(collection = db.name(kept), "an ordinary collection is made capped again");
            convert(db, kept, bytes).await?;
        }
        Some(options) if resize && options.size != u64::try_from(bytes).ok() => {
            set_size(db, kept, bytes).await?;
        }
        Some(_) => {}
    }
    if kept == Kept::Logs {
        db.of(kept).create_indexes(schema::log_indexes()).await?;
    }
    Ok(())
}

fn size(db: &Db, kept: Kept) -> i64 {
    let bytes = match kept {
        Kept::Logs => i64::try_from(db.caps.store_bytes).unwrap_or(i64::MAX - STEP),
        _ => SIGNALS_BYTES,
    };
    (bytes + STEP - 1) / STEP * STEP
}

/// The options of a collection, if it is there.
async fn found(db: &Db, kept: Kept) -> Done<Option<CreateCollectionOptions>> {
    let mut found = db.database.list_collections().filter(doc! {"name": db.name(kept)}).await?;
    Ok(found.try_next().await?.map(|found| found.options))
}

async fn set_size(db: &Db, kept: Kept, bytes: i64) -> Done<()> {
    let resize = doc! {"collMod": db.name(kept), "cappedSize": bytes};
    match db.database.run_command(resize).await {
        Ok(_) => Ok(()),
        // Servers before 6.0 know no such thing, and it takes rights that converting does not.
        Err(error) if code(&error).is_some() => convert(db, kept, bytes).await,
        Err(error) => Err(error.into()),
    }
}

/// Makes a collection capped, with its latest documents as far as they fit. It loses its indexes.
async fn convert(db: &Db, kept: Kept, bytes: i64) -> Done<()> {
    const NAMESPACE_NOT_FOUND: i32 = 26;
    let convert = doc! {"convertToCapped": db.name(kept), "size": bytes};
    match db.database.run_command(convert).await {
        // Dropped meanwhile: whoever looks next makes it.
        Err(error) if code(&error) == Some(NAMESPACE_NOT_FOUND) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Puts a document into a collection that has none: a cursor that waits at the end of an empty one is dead at once.
pub(crate) async fn put_sentinel(db: &Db, kept: Kept) -> Done<()> {
    // Of sequence 0, which no line has; of signals it tells nothing.
    let sentinel = doc! {"_id": 0, "events": []};
    match db.of(kept).insert_one(sentinel).await {
        Err(error) if code(&error) == Some(DUPLICATE) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
