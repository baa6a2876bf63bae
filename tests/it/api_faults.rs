//! The API server applies writes whose answers are lost: what is restored is exact all the same.

use crate::harness::Result;
use crate::harness::daemon::Daemon;
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::hub::NAMESPACE;
use crate::scene::{DEADLINE, Scene, differences, in_sync};
use understudy::object::Set;

const PERCENT: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_survives_lost_answers_of_the_api_server() -> Result<()> {
    let scene = Scene::set(3).await?;
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
    let lost = faultd.history("").iter().filter(|one| one.fault.is_some()).count();
    assert!(lost >= 10, "{lost} answers were lost");
    first.kill9();
    Ok(())
}
