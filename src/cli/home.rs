//! Where the daemon of a hub lives, for commands in which `-n` means the objects.

use super::Global;
use crate::config::settings::Settings;
use crate::kube_status::resource::Hub;

/// The namespace of the hub's `Hub` resource: of the configured name, else any. Whoever may not list
/// them over all namespaces is asked for nothing: the usual namespace counts.
pub(super) async fn of(client: &kube::Client, settings: &Settings) -> String {
    let hubs = kube::Api::<Hub>::all(client.clone());
    let hubs = hubs.list(&kube::api::ListParams::default()).await;
    let mut hubs = hubs.map_or_else(|_| vec![], |hubs| hubs.items);
    hubs.sort_by_key(|hub| hub.metadata.name.as_ref() != Some(&settings.hub.name));
    let namespace = hubs.into_iter().find_map(|hub| hub.metadata.namespace);
    namespace.unwrap_or_else(Global::usual_home)
}
