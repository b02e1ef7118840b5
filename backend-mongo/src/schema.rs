//! Reaches the server, tells what it is, and makes collections and indexes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::backend::Durability;
use leasehold_core::{Error, ErrorKind, Result};
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::{ClientOptions, DatabaseOptions, ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, IndexModel};

use crate::capped;
use crate::config::{Config, Events, wrong};
use crate::error::{BACKEND, Done, code};
use crate::heads::Heads;
use crate::hour::Hour;
use crate::record::{OFF_TURN, RUNNING, WAITING};
use crate::session::{Change, Db, Kept, concern};
use crate::tail::Tail;
use crate::turns::{Crowd, Turns};
use crate::watch::Signals;

/// The version of the collections.
const VERSION: i64 = 1;
/// How long the end of a worker's log is remembered after its last line.
const LOG_HEADS: Duration = Duration::from_secs(30 * 86_400);

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) durability: Durability,
    pub(crate) transactions: bool,
}

/// Reaches the server (clauses B5, B6).
pub(crate) async fn connect(config: &Config) -> Result<Db> {
    let options = options(config).await?;
    let name = config.database.clone().or_else(|| options.default_database.clone());
    let client = Client::with_options(options).map_err(|error| refused(config, &error))?;
    let database = client.database_with_options(
        &name.unwrap_or_else(|| "leasehold".into()),
        DatabaseOptions::builder()
            .write_concern(concern())
            .read_concern(ReadConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build(),
    );
    let hour = match &config.clock {
        Some(clock) => Hour::Clock(Arc::clone(clock)),
        None => Hour::Server(Mutex::default()),
    };
    let mut db = Db {
        signals: Signals::default(),
        change_tail: Tail::default(),
        line_tail: Tail::default(),
        client,
        database,
        prefix: config.prefix.clone(),
        hour,
        caps: config.log_caps,
        transactions: false,
        written: Mutex::default(),
        turns: Turns::default(),
        crowd: Crowd::default(),
        heads: Heads::default(),
        queues: Mutex::default(),
        events: config.events,
        logs_seen: Mutex::default(),
    };
    db.transactions = facts(&db).await.map_err(Error::from)?.transactions;
    if config.events == Events::ChangeStream && !db.transactions {
        let why = "a standalone server has no change streams; make it a replica set of one, or use signals";
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    Ok(db)
}

async fn options(config: &Config) -> Result<ClientOptions> {
    let mut options = ClientOptions::parse(&config.url).await.map_err(|error| refused(config, &error))?;
    // The driver has no time-out for an answer: a server that froze is found out by these.
    options.heartbeat_freq.get_or_insert(Duration::from_secs(1));
    options.connect_timeout.get_or_insert(Duration::from_secs(2));
    options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
    options.app_name.get_or_insert_with(|| "leasehold".into());
    options.write_concern = Some(concern());
    Ok(options)
}

/// The driver refused the URL, or could not look its name up; what it says may have parts of the URL.
fn refused(config: &Config, error: &mongodb::error::Error) -> Error {
    if matches!(error.kind.as_ref(), mongodb::error::ErrorKind::DnsResolve { .. }) {
        let why = config.without_secrets(&error.to_string());
        let message = format!("the server's name cannot be resolved: {why}");
        return Error::new(ErrorKind::Unavailable, message).on(BACKEND);
    }
    wrong(format!("the URL cannot be used: {}", config.without_secrets(&error.to_string())))
}

/// Asks the server what it is (clause P1).
pub(crate) async fn facts(db: &Db) -> Done<Facts> {
    let hello = db.database.run_command(doc! {"hello": 1}).await?;
    let build = db.database.run_command(doc! {"buildInfo": 1}).await?;
    let members = hello.get_array("hosts").map_or(0, Vec::len);
    let replicated = hello.contains_key("setName");
    let sharded = hello.get_str("msg").ok() == Some("isdbgrid");
    Ok(Facts {
        version: build.get_str("version").unwrap_or("unknown").to_owned(),
        durability: if members >= 3 { Durability::D3 } else { Durability::D2 },
        transactions: replicated || sharded,
    })
}

/// Makes what is missing (clause B4).
pub(crate) async fn setup(db: &Db) -> Done<()> {
    check_version(db).await?;
    let there = db.database.list_collection_names().await?;
    for kept in Kept::PLAIN {
        if !there.contains(&db.name(kept)) {
            create(db, kept, doc! {}).await?;
        }
    }
    for kept in Kept::CAPPED {
        capped::set_up(db, kept).await?;
    }
    db.of(Kept::Jobs).create_indexes(job_indexes()).await?;
    db.of(Kept::Registers).create_indexes(register_indexes()).await?;
    let forgotten = leasehold_core::limits::CLAIM_MEMORY * 6;
    db.of(Kept::Claims).create_index(forgetting(forgotten)).await?;
    db.of(Kept::LogHeads).create_index(forgetting(LOG_HEADS)).await?;
    let mut mark = Change::one(
        doc! {"_id": "schema"},
        doc! {"$max": {"version": VERSION}, "$setOnInsert": {"ours": true}},
    );
    mark.upsert = true;
    let marked = db.plain().update(Kept::Meta, vec![mark]).await?;
    if marked.failed.iter().any(|(_, code, _)| *code == crate::error::DUPLICATE) {
        // Another process has just written the same.
        return Ok(());
    }
    marked.whole().map(drop)
}

pub(crate) async fn create(db: &Db, kept: Kept, options: Document) -> Done<()> {
    const EXISTS: i32 = 48;
    let mut command = doc! {"create": db.name(kept)};
    command.extend(options);
    match db.database.run_command(command).await {
        Err(error) if code(&error) == Some(EXISTS) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

async fn check_version(db: &Db) -> Done<()> {
    let Some(schema) = db.of(Kept::Meta).find_one(doc! {"_id": "schema"}).await? else { return Ok(()) };
    let why = match crate::record::whole(schema.get("version")) {
        Some(version) if version <= VERSION => return Ok(()),
        Some(version) => {
            format!(
                "the collections are of version {version}, this program knows up to {VERSION}: use a newer one"
            )
        }
        None => format!("the collection {} is not ours; choose another prefix", db.name(Kept::Meta)),
    };
    Err(Error::new(ErrorKind::Incompatible, why).on(BACKEND).into())
}

fn index(name: &str, keys: Document) -> IndexModel {
    partial(name, keys, None, false)
}

fn partial(name: &str, keys: Document, filter: Option<Document>, unique: bool) -> IndexModel {
    let mut options = mongodb::options::IndexOptions::default();
    options.name = Some(name.into());
    options.partial_filter_expression = filter;
    options.unique = unique.then_some(true);
    IndexModel::builder().keys(keys).options(options).build()
}

fn job_indexes() -> Vec<IndexModel> {
    let waiting = Some(doc! {"state": WAITING});
    let running = Some(doc! {"state": RUNNING});
    let ended = Some(doc! {"finished_at": {"$gt": DateTime::MIN}});
    let key = |field: &str| Some(doc! {field: {"$type": "string"}});
    let limited = Some(doc! {"state": RUNNING, "limit_key": {"$type": "string"}});
    vec![
        partial(
            "waiting",
            doc! {"queue": 1, "priority": -1, "due": 1, "_id": 1, "kind": 1, "state": 1},
            waiting,
            false,
        ),
        partial("off_turn", doc! {"queue": 1, "due": 1, "kind": 1}, Some(doc! {OFF_TURN: true}), false),
        partial("running", doc! {"lease_until": 1, "_id": 1, "queue": 1, "state": 1}, running, false),
        partial("limited", doc! {"limit_key": 1}, limited, false),
        partial("unique", doc! {"unique_key": 1}, key("unique_key"), true),
        partial("ended", doc! {"queue": 1, "state": 1, "expires_at": 1, "finished_at": 1}, ended, false),
        index("listed", doc! {"enqueued_at": 1, "_id": 1}),
    ]
}

fn register_indexes() -> Vec<IndexModel> {
    let dated = |field: &str| Some(doc! {field: {"$type": "date"}});
    vec![
        partial("due", doc! {"next": 1}, dated("next"), false),
        partial("expiring", doc! {"expires": 1}, dated("expires"), false),
    ]
}

/// The server itself forgets what is so old: claims that cannot be repeated, ends of logs that nobody adds to.
fn forgetting(after: Duration) -> IndexModel {
    let mut options = mongodb::options::IndexOptions::default();
    options.name = Some("forgotten".into());
    options.expire_after = Some(after);
    IndexModel::builder().keys(doc! {"at": 1}).options(options).build()
}

pub(crate) fn log_indexes() -> Vec<IndexModel> {
    vec![index("of_job", doc! {"job": 1, "_id": 1}), index("of_worker", doc! {"worker": 1, "_id": 1})]
}
