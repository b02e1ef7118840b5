//! Users who may not do everything.

use leasehold_core::{Backend, ErrorKind};
use leasehold_mongo::mongodb::bson::doc;
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;

use crate::bench::{SUCCEED, add, claim, jobs, set_up, settle, soon};

const SECRET: &str = "hunter2";

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_make_no_indexes_is_told_which_role_it_takes() {
    let server = Server::guarded("reader", SECRET).expect("a server");
    let node = &server.nodes()[0];
    let resource = doc! {"db": "leasehold", "collection": ""};
    let actions = ["find", "insert", "update", "remove"].to_vec();
    let privileges = vec![doc! {"resource": resource, "actions": actions}];
    node.run(doc! {"createRole": "narrow", "privileges": privileges, "roles": []}).await.expect("a role");
    for (user, role) in [("narrow", doc! {"role": "narrow", "db": "admin"}), ("wide", wide())] {
        node.run(doc! {"createUser": user, "pwd": SECRET, "roles": [role]}).await.expect("a user");
    }
    let narrow = Mongo::connect(&server.url_of("narrow", SECRET)).await.expect("a store");
    let error = narrow.setup(soon()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("readWrite"), "{error}");
    assert!(!error.is_transient());
    assert!(!format!("{error} {error:?} {narrow:?}").contains(SECRET), "{error:?}");
    // The named role is enough to make everything, and fewer rights are enough to work.
    set_up(Config::new(server.url_of("wide", SECRET))).await;
    add(&narrow, jobs(1)).await;
    let lease = claim(&narrow, 1).await.jobs.remove(0);
    settle(&narrow, &lease, &SUCCEED).await;
}

fn wide() -> leasehold_mongo::mongodb::bson::Document {
    doc! {"role": "readWrite", "db": "leasehold"}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_denied_and_never_shown() {
    let server = Server::guarded("reader", SECRET).expect("a server");
    for (user, password) in [("reader", "hunter3"), ("nobody", "hunter3"), ("reader", "hunt%653r%21")] {
        let error = Mongo::connect(&server.url_of(user, password)).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        let told = format!("{error} {error:?}");
        assert!(!told.contains(password) && !told.contains("hunte3r!"), "{told}");
    }
    // An encoded password, and one that is asked for elsewhere.
    let encoded = server.url_of("reader", "%68unter2");
    let store = Mongo::connect(&encoded).await.expect("a store");
    assert!(!format!("{store:?}").contains("unter2"), "{store:?}");
    let elsewhere = format!("{encoded}?authSource=nowhere");
    let error = Mongo::connect(&elsewhere).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("unter2"), "{error:?}");
}
