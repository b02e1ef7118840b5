//! What the server is, and whether it can be used.

use std::collections::HashMap;

use leasehold_core::backend::Durability;
use leasehold_core::{Error, ErrorKind};
use redis::{InfoDict, cmd};

use crate::error::{Done, Fault};
use crate::scripts::SETUP;
use crate::session::Db;

/// What the server says of itself.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) durability: Durability,
    is_replica: bool,
    /// The policy by which it throws keys away, if it does.
    evicts: Option<String>,
}

/// Asks the server for its settings. Where it keeps them to itself, for what it tells all the same.
pub(crate) async fn facts(db: &Db) -> Done<Facts> {
    let info: InfoDict = redis::from_redis_value(db.send(&cmd("INFO")).await?)?;
    let text = |name: &str| info.get::<String>(name).unwrap_or_default();
    let (bounded, policy) = (text("maxmemory") != "0", text("maxmemory_policy"));
    let name = if info.contains_key(&"valkey_version") { "valkey_version" } else { "redis_version" };
    let replicas = text("connected_slaves");
    let with =
        if matches!(replicas.as_str(), "" | "0") { String::new() } else { format!(", {replicas} replicas") };
    Ok(Facts {
        version: text(name) + &with,
        durability: durability(text("aof_enabled") == "1", settings(db).await?.as_ref()),
        is_replica: text("role") == "slave",
        evicts: (bounded && policy != "noeviction").then_some(policy),
    })
}

/// What the server is told about its append-only file; none if it does not say.
async fn settings(db: &Db) -> Done<Option<HashMap<String, String>>> {
    let mut all = HashMap::new();
    // One at a time: servers before 7.0 take no more.
    for name in ["appendfsync", "no-appendfsync-on-rewrite"] {
        match db.send(cmd("CONFIG").arg("GET").arg(name)).await {
            Ok(found) => all.extend(redis::from_redis_value::<HashMap<String, String>>(found)?),
            Err(Fault::Driver(error)) if matches!(error.code(), Some("ERR" | "NOPERM")) => {
                tracing::info!(
                    "the server does not tell its settings (CONFIG GET); assuming the weaker ones"
                );
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(Some(all))
}

/// What an acknowledged write outlives (clause P1).
fn durability(appends: bool, settings: Option<&HashMap<String, String>>) -> Durability {
    let is = |name: &str, value: &str| {
        settings.and_then(|settings| settings.get(name)).is_some_and(|set| set == value)
    };
    match (appends, is("appendfsync", "always") && is("no-appendfsync-on-rewrite", "no")) {
        (false, _) => Durability::D0,
        (true, false) => Durability::D1,
        (true, true) => Durability::D2,
    }
}

/// Makes the namespace ready, on a server that keeps what it is given.
pub(crate) async fn setup(db: &Db) -> Done<()> {
    let facts = facts(db).await?;
    let refused = |why: String| Err(Error::new(ErrorKind::Config, why).into());
    if facts.is_replica {
        return refused(
            "this server is a replica, which takes no writes: name its primary in the URL".into(),
        );
    }
    if let Some(policy) = &facts.evicts {
        return refused(format!(
            "the server throws keys away when its memory is full (`maxmemory-policy {policy}`), and jobs are keys: set \
             `maxmemory-policy noeviction`, or `maxmemory 0`"
        ));
    }
    if facts.durability == Durability::D0 {
        tracing::warn!(
            location = db.config.location(),
            "the server keeps no append-only file, so jobs are gone with it: set `appendonly yes`"
        );
    }
    db.run::<i64>(&SETUP, |_| {}).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_what_the_settings_say() {
        let settings = |sync: &str, rewrite: &str| {
            let pairs = [("appendfsync", sync), ("no-appendfsync-on-rewrite", rewrite)];
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<HashMap<_, _>>()
        };
        let of = |appends, sync, rewrite| durability(appends, Some(&settings(sync, rewrite)));
        assert_eq!(of(true, "always", "no"), Durability::D2);
        assert_eq!(of(true, "always", "yes"), Durability::D1);
        assert_eq!(of(true, "everysec", "no"), Durability::D1);
        assert_eq!(of(false, "always", "no"), Durability::D0);
        assert_eq!(durability(true, None), Durability::D1);
    }
}
