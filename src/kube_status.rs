//! The `Hub` resource: what `kubectl get hub` shows, what a promotion remembers over a restart, and
//! where an operator asks for one.
//!
//! The resource has a status and no spec: there is no second source of configuration, and no
//! reconciler from Git has anything to revert. The daemon creates it. Ownership stands in the journal, not here: a lost `Hub`
//! costs the request of a running promotion and the watermark, never the role.
//!
//! What may go wrong: the CRD is missing (the daemon ends with the command that installs it), another
//! process writes the same status (`Published::Conflict`, nothing is overwritten), the API server is
//! away (the caller goes on; what is shown grows old and says so).

pub mod ask;
pub mod events;
pub mod publisher;
pub mod request;
pub mod resource;

use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
pub use resource::{Hub, HubFields, HubStatus};
use std::collections::BTreeMap;

/// Under which our writes stand in `managedFields`.
pub const FIELD_MANAGER: &str = "understudy";

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the CustomResourceDefinition hubs.understudy.dev is not installed")]
    CrdMissing,
    #[error("the namespace {namespace} does not exist")]
    NamespaceMissing { namespace: String },
    #[error("failed to read the namespace kube-system, which identifies this cluster")]
    Cluster(#[source] kube::Error),
    #[error("failed to read hub {namespace}/{name}")]
    Read { namespace: String, name: String, source: kube::Error },
    #[error("failed to list the hubs of namespace {namespace}")]
    List { namespace: String, source: kube::Error },
    #[error("failed to create hub {namespace}/{name}")]
    Create { namespace: String, name: String, source: kube::Error },
    #[error("failed to write the status of hub {namespace}/{name}")]
    Publish { namespace: String, name: String, source: kube::Error },
    #[error("failed to write the request onto hub {namespace}/{name}")]
    Ask { namespace: String, name: String, source: kube::Error },
    #[error("failed to remove the request from hub {namespace}/{name}")]
    Clear { namespace: String, name: String, source: kube::Error },
}

impl HubError {
    /// What would make it work, where one command does.
    pub fn hint(&self) -> Option<String> {
        match self {
            HubError::CrdMissing => Some("understudy crd | kubectl apply -f -".to_owned()),
            HubError::NamespaceMissing { namespace } => {
                Some(format!("kubectl create namespace {namespace}"))
            }
            HubError::Cluster(_)
            | HubError::Read { .. }
            | HubError::List { .. }
            | HubError::Create { .. }
            | HubError::Publish { .. }
            | HubError::Ask { .. }
            | HubError::Clear { .. } => None,
        }
    }
}

fn api(client: &kube::Client, namespace: &str) -> Api<Hub> {
    Api::namespaced(client.clone(), namespace)
}

fn as_us() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false }
}

/// None: the CRD is there, the object is not.
pub async fn load(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Hub>, HubError> {
    match api(client, namespace).get(name).await {
        Ok(hub) => Ok(Some(hub)),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            if names_no_object(&status.message) {
                Err(HubError::CrdMissing)
            } else {
                Ok(None)
            }
        }
        Err(source) => {
            Err(HubError::Read { namespace: namespace.to_owned(), name: name.to_owned(), source })
        }
    }
}

/// All hubs of a namespace: usually one.
pub async fn list(client: &kube::Client, namespace: &str) -> Result<Vec<Hub>, HubError> {
    match api(client, namespace).list(&kube::api::ListParams::default()).await {
        Ok(hubs) => Ok(hubs.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(HubError::CrdMissing),
        Err(source) => Err(HubError::List { namespace: namespace.to_owned(), source }),
    }
}

/// A path that the server does not serve is answered in plain text, an object that is not there with
/// a `Status` that names it.
fn names_no_object(message: &str) -> bool {
    !message.contains("not found") || message.contains("page not found")
}

/// Reads the own `Hub` or creates it empty.
pub async fn ensure(client: &kube::Client, namespace: &str, name: &str) -> Result<Hub, HubError> {
    if let Some(hub) = load(client, namespace, name).await? {
        return Ok(hub);
    }
    let labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "understudy".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "understudy".to_owned()),
    ]);
    let mut hub = Hub::new(name, HubFields {});
    hub.metadata =
        ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    match api(client, namespace).create(&as_us(), &hub).await {
        Ok(hub) => Ok(hub),
        // Another process of this hub was faster: read what it made.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            load(client, namespace, name).await?.ok_or(HubError::Create {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                source: kube::Error::Api(status),
            })
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            if names_no_object(&status.message) {
                Err(HubError::CrdMissing)
            } else {
                Err(HubError::NamespaceMissing { namespace: namespace.to_owned() })
            }
        }
        Err(source) => {
            Err(HubError::Create { namespace: namespace.to_owned(), name: name.to_owned(), source })
        }
    }
}

/// What tells this cluster from one that was rebuilt under the same name: the UID of `kube-system`.
pub async fn cluster_uid(client: &kube::Client) -> Result<String, HubError> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let system = namespaces.get("kube-system").await.map_err(HubError::Cluster)?;
    Ok(system.metadata.uid.unwrap_or_default())
}

/// What a write of the status came to.
#[derive(Debug)]
pub enum Published {
    /// The object as it stands now, with its new resourceVersion.
    Done(Box<Hub>),
    /// The object was changed since `resource_version`: read it again.
    Conflict,
    /// Somebody deleted it: it can be made anew by [`ensure`].
    Gone,
}

/// Writes the status if the object still stands at `resource_version`.
pub async fn publish(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    status: &HubStatus,
    resource_version: &str,
) -> Result<Published, HubError> {
    let mut hub = Hub::new(name, HubFields {});
    hub.metadata.namespace = Some(namespace.to_owned());
    hub.metadata.resource_version = Some(resource_version.to_owned());
    hub.status = Some(status.clone());
    match api(client, namespace).replace_status(name, &as_us(), &hub).await {
        Ok(hub) => Ok(Published::Done(Box::new(hub))),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(Published::Conflict),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Published::Gone),
        Err(source) => Err(HubError::Publish {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_crd_is_told_from_a_missing_object() {
        for (message, missing) in [
            ("404 page not found", true),
            ("the server could not find the requested resource", true),
            (r#"hubs.understudy.dev "eu-1" not found"#, false),
            (r#"namespaces "understudy" not found"#, false),
        ] {
            assert_eq!(names_no_object(message), missing, "{message}");
        }
    }
}
