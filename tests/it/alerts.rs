//! dashboards/alerts.yaml as Prometheus reads it: the rules are sound, and fire when they should.

use crate::harness::Result;
use crate::harness::scratch::Scratch;
use crate::promtool::promtool;
use std::path::Path;

/// What docs/alerts.md tells people to configure.
#[tokio::test(flavor = "multi_thread")]
async fn the_sample_configuration_is_one() -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(top.join("docs/alerts.md"))?;
    let samples = page.split("```yaml\n").skip(1).filter_map(|sample| sample.split("```").next());
    let sample = samples.into_iter().find(|sample| sample.starts_with("scrape_configs:"));
    let scratch = Scratch::new()?;
    std::fs::write(scratch.path().join("prometheus.yaml"), sample.ok_or("no sample")?)?;
    std::fs::copy(top.join("dashboards/alerts.yaml"), scratch.path().join("alerts.yaml"))?;
    promtool(scratch.path(), &["check", "config", "prometheus.yaml"], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_are_sound_and_their_tests_pass() -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let strict = ["check", "rules", "--lint=all", "--lint-fatal", "dashboards/alerts.yaml"];
    promtool(top, &strict, "").await?;
    promtool(top, &["test", "rules", "tests/alerts/tests.yaml"], "").await?;
    Ok(())
}
