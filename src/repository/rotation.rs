//! Pure: whether the journal may change to another key now.
//!
//! A hub that lacks the new key freezes at the change. So the key file comes first, on every hub, and
//! whoever is to be left out is left out on purpose.

use super::chain::View;
use crate::status::Peer;

/// Why the journal must not change to the key `to` yet. `force`: whichever of the `peers` hold it.
pub fn refuses(view: &View, to: &str, peers: &[Peer], force: bool) -> Option<String> {
    if view.key() == Some(to) {
        return Some(format!(
            "the journal is under the key {to} already, which comes first in encryption.keyFiles: \
             put a new key file before it, on every hub of the pair, and restart them"
        ));
    }
    // Whoever was left out by leaving it still holds it.
    if view.keys.values().any(|former| former == to) {
        return Some(format!(
            "the journal was under the key {to} before, and a key that was left is not taken again: \
             put a new key file first, made by: understudy key new"
        ));
    }
    let lacks = |peer: &&Peer| !peer.silent && !peer.keys.iter().any(|key| key == to);
    let without: Vec<_> =
        peers.iter().filter(lacks).filter(|_| !force).map(|p| p.hub.as_str()).collect();
    (!without.is_empty()).then(|| {
        format!(
            "alive and without the key {to}: {}; add the key file there and restart, or leave it out \
             with --force: it then freezes",
            without.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    fn check(name: &str, to: &str, peers: &[(&str, bool, &[&str])], force: bool, told: &str) {
        let view =
            View { keys: [(1, "k1".to_owned()), (9, "k2".to_owned())].into(), ..View::default() };
        let peer = |(hub, silent, keys): &(&str, bool, &[&str])| Peer {
            hub: (*hub).to_owned(),
            silent: *silent,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..samples::primary().peers.remove(0)
        };
        let peers: Vec<_> = peers.iter().map(peer).collect();
        let refused = refuses(&view, to, &peers, force).unwrap_or_default();
        assert_eq!(refused.is_empty(), told.is_empty(), "{name}: {refused}");
        assert!(refused.contains(told), "{name}: {refused}");
    }

    #[test]
    fn the_key_changes_to_a_new_one_that_all_hubs_alive_hold() {
        check("nobody else", "k3", &[], false, "");
        check("all hold it", "k3", &[("b", false, &["k2", "k3"])], false, "");
        check("one does not", "k3", &[("b", false, &["k2"])], false, "without the key k3: b;");
        check("an older version does not say", "k3", &[("b", false, &[])], false, "k3: b;");
        check("but it is dead", "k3", &[("b", true, &["k2"])], false, "");
        check("but it is to be left out", "k3", &[("b", false, &["k2"])], true, "");
        check("the one of today", "k2", &[], true, "already");
        check("a former one", "k1", &[], true, "not taken again");
    }
}
