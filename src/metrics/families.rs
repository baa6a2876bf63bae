//! Pure: gauges as the encoder takes them.

use super::gauges::Gauge;
use prometheus::proto;

pub(super) fn families(gauges: &[Gauge]) -> Vec<proto::MetricFamily> {
    gauges.iter().map(family).collect()
}

fn family(gauge: &Gauge) -> proto::MetricFamily {
    let metric = |(labels, value): &(Vec<(&'static str, String)>, f64)| {
        let pairs = labels.iter().map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        });
        let mut held = proto::Gauge::default();
        held.set_value(*value);
        let mut metric = proto::Metric::default();
        metric.set_label(pairs.collect());
        metric.set_gauge(held);
        metric
    };
    let mut family = proto::MetricFamily::default();
    family.set_name(gauge.name.to_owned());
    family.set_help(gauge.help.to_owned());
    family.set_field_type(proto::MetricType::GAUGE);
    family.set_metric(gauge.series.iter().map(metric).collect());
    family
}
