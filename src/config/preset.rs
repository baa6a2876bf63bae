//! Pure: the shipped presets. They are configuration, not code: files under `config/presets/`, in the
//! same grammar as `sets:`, embedded so that the binary needs nothing beside it.

use crate::capture::rules::Preset;

/// All presets by name.
const SHIPPED: &[(&str, &str)] = &[
    ("ocm", include_str!("../../config/presets/ocm.yaml")),
    ("acm", include_str!("../../config/presets/acm.yaml")),
    ("argocd", include_str!("../../config/presets/argocd.yaml")),
    ("capi", include_str!("../../config/presets/capi.yaml")),
    ("crossplane", include_str!("../../config/presets/crossplane.yaml")),
    ("karmada", include_str!("../../config/presets/karmada.yaml")),
    ("rancher", include_str!("../../config/presets/rancher.yaml")),
];

/// The names that `presets:` may hold.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// None: there is no preset of that name.
pub fn load(name: &str) -> Option<Preset> {
    let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
    Some(serde_saphyr::from_str(text).expect("shipped presets are parsed by the tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_preset_parses_and_bears_its_name() {
        for name in names() {
            assert_eq!(load(name).unwrap().name, name);
        }
        assert!(load("nothing").is_none());
    }
}
