//! dashboards/alerts.yaml as Prometheus reads it: the rules are sound, and fire when they should.

use crate::harness::Result;
use crate::promtool::promtool;
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_are_sound_and_their_tests_pass() -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let strict = ["check", "rules", "--lint=all", "--lint-fatal", "dashboards/alerts.yaml"];
    promtool(top, &strict, "").await?;
    promtool(top, &["test", "rules", "tests/alerts/tests.yaml"], "").await?;
    Ok(())
}
