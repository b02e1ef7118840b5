/// What was built, this program and the one for effectum.
const LOCKS: [&str; 2] = [include_str!("../Cargo.lock"), include_str!("../effectum/Cargo.lock")];

/// The version of a package that takes part.
pub(crate) fn version(package: &str) -> &'static str {
    LOCKS.into_iter().find_map(|lock| in_lock(lock, package)).unwrap_or("unknown")
}

fn in_lock<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split_once('"').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_has_a_version() {
        for store in <crate::options::Store as strum::VariantArray>::VARIANTS {
            for contestant in crate::peers::all(*store) {
                assert_ne!(version(contestant.package), "unknown", "{}", contestant.package);
            }
        }
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another() {
        let lock = "name = \"a-b\"\nversion = \"1\"\n\nname = \"a\"\nversion = \"2\"\n";
        assert_eq!(in_lock(lock, "a"), Some("2"));
    }
}
