//! The API server applies writes whose answers are lost: what is restored is exact all the same.

use crate::harness::Result;
use crate::harness::daemon::Daemon;
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::hub::NAMESPACE;
use crate::harness::status;
use crate::scene::{DEADLINE, Scene, differences, in_sync};
use serde_json::{Value, json};
use understudy::object::Set;

const PERCENT: u64 = 30;
const CLUSTERS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_survives_lost_answers_of_the_api_server() -> Result<()> {
    let scene = Scene::set(CLUSTERS).await?;
    let (faultd, kubeconfig) = scene.pair.passive.faultd().await?;
    for (seed, method) in [(1, "POST"), (2, "PUT"), (3, "PATCH")] {
        let (fault, key) = (Fault::ApplyThenDrop, String::new());
        let when = When::Chance { percent: PERCENT, seed };
        faultd.add(Rule { fault, method, key, when });
    }
    let mut first = scene.start_first().await?;
    let mut second = Daemon::start(&scene.second_file()?, &kubeconfig, NAMESPACE)?;
    second.wait_live().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    let passive = [Set::Credentials, Set::Resources];
    assert_eq!(differences(&scene, &passive).await?, Vec::<String>::new());

    // Updates, too: a patch whose answer was lost finds its own digest when it is sent again.
    let source = scene.pair.primary.api()?;
    for cluster in 0..CLUSTERS {
        let path = format!("/api/v1/namespaces/cluster-{cluster:04}/configmaps/site");
        let change = json!({"data": {"changed": "yes", "contact": null}});
        source.merge_patch(&path, &change).await?;
    }
    let backup = scene.backup(&mut first).await?;
    let holds = |seen: &Value| (status::restored(seen) == Some(&*backup)).then_some(());
    second.until(DEADLINE, "the standby to hold the change", holds).await?;
    assert_eq!(differences(&scene, &passive).await?, Vec::<String>::new());
    let patches = faultd.history("").into_iter().filter(|one| {
        one.fault.is_some() && one.method == "PATCH" && one.key.contains("/configmaps/")
    });
    assert!(patches.count() > 0, "answers of patches were lost");
    let lost = faultd.history("").iter().filter(|one| one.fault.is_some()).count();
    assert!(lost >= 10, "{lost} answers were lost");
    first.kill9();
    scene.second_did_what_it_may()
}
