//! One real control plane: etcd, kube-apiserver and kube-controller-manager on loopback.
//!
//! Default admission, the controllers that a restore target needs, no nodes and no workloads.
//! Ready means that the controllers work: the default `ServiceAccount` and the root certificate's
//! `ConfigMap` exist.

use super::bare::Api;
use super::etcd::Etcd;
use super::faultd::Faultd;
use super::ports::Port;
use super::process::Process;
use super::scratch::Scratch;
use super::tools::{self, Cluster};
use super::{Result, eventually, install_tls_provider};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use understudy::object::ObjectKey;

/// Whom the daemon is on the hub. Another user than the tests' own, so that the audit log tells
/// its requests from theirs. Both are members of `system:masters`.
pub const DAEMON_USER: &str = "understudy";
pub const DAEMON_TOKEN: &str = "understudy-token";
pub const ADMIN_TOKEN: &str = "admin-token";
/// A user without any rights, to which a test binds what it needs.
pub const PLAIN_USER: &str = "plain";
pub const PLAIN_TOKEN: &str = "plain-token";
const CONTROLLERS_TOKEN: &str = "controllers-token";

/// The namespace in which a daemon lives.
pub const NAMESPACE: &str = "understudy";

const READY_DEADLINE: Duration = Duration::from_mins(1);
const PORTS: usize = 5;
/// A port can be taken by a process that knows nothing of our locks.
const START_ATTEMPTS: usize = 3;

/// What a restore target needs to behave like a real hub: namespaces finish deleting, owner
/// references are honoured, every namespace gets its default `ServiceAccount` and root
/// certificate, token Secrets are filled in, aggregated `ClusterRole`s and quotas are computed.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,\
    serviceaccount-controller,serviceaccount-token-controller,\
    root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,\
    resourcequota-controller";

/// Every write of everybody, and the reads of whoever is not part of the control plane. Of the daemon's
/// deletions also the conditions.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"omitStages": ["RequestReceived"], "rules": [
{"level": "None", "verbs": ["get", "list", "watch"], "userGroups": ["system:serviceaccounts"]},
{"level": "None", "verbs": ["get", "list", "watch"], "users": ["system:apiserver", "system:kube-controller-manager"]},
{"level": "Request", "verbs": ["delete"], "users": ["understudy"]},
{"level": "Metadata"}]}"#;

#[derive(Clone, Debug)]
pub struct HubOptions {
    pub audit: bool,
    pub extra_apiserver: Vec<String>,
    /// A built-in kind that is kept in an etcd of its own, as `group/resource`.
    pub own_store: Option<&'static str>,
    /// Bytes that etcd takes.
    pub quota: u64,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { audit: true, extra_apiserver: Vec::new(), own_store: None, quota: 8 << 30 }
    }
}

pub struct Hub {
    pub name: String,
    pub url: String,
    /// For daemons: the user [`DAEMON_USER`].
    pub kubeconfig: PathBuf,
    /// For tests and people.
    pub admin_kubeconfig: PathBuf,
    options: HubOptions,
    programs: Cluster,
    /// etcd for clients and peers, the API server, and a second etcd for both.
    ports: Vec<Port>,
    /// None after [`Hub::kill`].
    running: Option<Running>,
    scratch: Scratch,
}

/// In the order in which they must end: Rust drops fields from the top.
struct Running {
    _controllers: Process,
    apiserver: Process,
    _etcds: Vec<Process>,
}

impl Hub {
    pub async fn start(name: &str, options: HubOptions) -> Result<Self> {
        install_tls_provider();
        let mut attempt = 1;
        loop {
            match Self::start_once(name, options.clone()).await {
                Err(error) if attempt < START_ATTEMPTS => {
                    eprintln!("hub {name} did not start, trying again: {error}");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn start_once(name: &str, options: HubOptions) -> Result<Self> {
        let ports = (0..PORTS).map(|_| Port::reserve()).collect::<Result<Vec<_>>>()?;
        let scratch = Scratch::new()?;
        let folder = scratch.path();
        let mut hub = Self {
            name: name.to_owned(),
            url: format!("https://{}", ports[2].address()),
            kubeconfig: folder.join("understudy.kubeconfig"),
            admin_kubeconfig: folder.join("admin.kubeconfig"),
            options,
            programs: tools::cluster().await?,
            ports,
            running: None,
            scratch,
        };
        hub.write_identities()?;
        hub.restart().await?;
        Ok(hub)
    }

    /// Starts everything on the data and the ports of before. Does nothing while it runs.
    pub async fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let mut etcds = vec![self.start_etcd("etcd", [0, 1]).await?];
        if self.options.own_store.is_some() {
            etcds.push(self.start_etcd("etcd-apart", [3, 4]).await?);
        }
        let apiserver = self.start_apiserver().await?;
        let api = self.api()?;

        let mut controllers =
            self.process("kube-controller-manager", self.controllers_command())?;
        let default = "/api/v1/namespaces/default";
        ready(&mut controllers, async || {
            api.get(&format!("{default}/serviceaccounts/default")).await.is_ok()
                && api.get(&format!("{default}/configmaps/kube-root-ca.crt")).await.is_ok()
        })
        .await?;
        self.running = Some(Running { _controllers: controllers, apiserver, _etcds: etcds });
        Ok(())
    }

    async fn start_etcd(&self, name: &str, ports: [usize; 2]) -> Result<Process> {
        let mut etcd = self.process(name, self.etcd_command(name, ports))?;
        let health = format!("http://{}/health", self.ports[ports[0]].address());
        let plain = reqwest::Client::new();
        ready(&mut etcd, async || answers(plain.get(&health)).await).await?;
        Ok(etcd)
    }

    async fn start_apiserver(&self) -> Result<Process> {
        let mut apiserver = self.process("kube-apiserver", self.apiserver_command())?;
        let api = self.api()?;
        ready(&mut apiserver, async || api.get("/readyz").await.is_ok()).await?;
        Ok(apiserver)
    }

    /// SIGKILL to the API server alone, and another one in its place.
    pub async fn restart_apiserver(&mut self) -> Result<()> {
        self.running.as_mut().ok_or("the hub was killed")?.apiserver.kill();
        let apiserver = self.start_apiserver().await?;
        self.running.as_mut().ok_or("the hub was killed")?.apiserver = apiserver;
        Ok(())
    }

    /// The store below the API server.
    pub fn etcd(&self) -> Result<Etcd> {
        Etcd::new(&self.ports[0].address())
    }

    /// SIGKILL to the whole hub. A graceful end would take 15 s, and a disaster is none.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// The API server hangs: connections are accepted and nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.running.as_ref().ok_or("the hub was killed")?.apiserver.signal("STOP")
    }

    pub fn resume(&self) -> Result<()> {
        self.running.as_ref().ok_or("the hub was killed")?.apiserver.signal("CONT")
    }

    /// The lean client of the tests, as an administrator.
    pub fn api(&self) -> Result<Api> {
        self.api_as(ADMIN_TOKEN)
    }

    pub fn api_as(&self, token: &str) -> Result<Api> {
        Api::new(&self.url, &self.folder().join("ca.crt"), token)
    }

    /// A new one at every call, because a client lives and dies with the runtime of its test.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.admin_kubeconfig)?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    pub fn write_kubeconfig(&self, file: &Path, token: &str) -> Result<()> {
        let cluster = json!({
            "server": self.url, "certificate-authority": self.folder().join("ca.crt"),
        });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": self.name,
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": self.name}}],
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": self.name, "user": {"token": token}}],
        });
        Ok(std::fs::write(file, serde_json::to_vec_pretty(&config)?)?)
    }

    /// A fault proxy before the API server, and the kubeconfig of a daemon behind it.
    pub async fn faultd(&self) -> Result<(Faultd, PathBuf)> {
        let faultd = Faultd::before_api_server(&self.url, self.folder()).await?;
        let text = std::fs::read_to_string(&self.kubeconfig)?.replace(&self.url, &faultd.endpoint);
        let file = self.kubeconfig.with_extension("faultd");
        std::fs::write(&file, text)?;
        Ok((faultd, file))
    }

    /// All requests that the audit log holds, oldest first.
    pub fn audit(&self) -> Result<Vec<AuditEvent>> {
        let text = std::fs::read_to_string(self.folder().join("audit.log"))?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| AuditEvent::parse(line).ok()).collect())
    }

    /// Mutating requests, with and without dry run, that `filter` lets through.
    pub fn audit_writes(&self, filter: impl Fn(&AuditEvent) -> bool) -> Result<Vec<AuditEvent>> {
        Ok(self.audit()?.into_iter().filter(|event| event.is_write() && filter(event)).collect())
    }

    fn folder(&self) -> &Path {
        self.scratch.path()
    }

    fn process(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.folder().join(format!("{name}.log"));
        Process::start(&format!("{name} of hub {}", self.name), command, &log)
    }

    fn write_identities(&self) -> Result<()> {
        let folder = self.folder();
        write_certificates(folder)?;
        let tokens = format!(
            "{ADMIN_TOKEN},admin,1,\"system:masters\"\n\
             {DAEMON_TOKEN},{DAEMON_USER},2,\"system:masters\"\n\
             {CONTROLLERS_TOKEN},system:kube-controller-manager,3,\n\
             {PLAIN_TOKEN},{PLAIN_USER},4,\n"
        );
        std::fs::write(folder.join("tokens.csv"), tokens)?;
        std::fs::write(folder.join("audit.yaml"), AUDIT_POLICY)?;
        self.write_kubeconfig(&self.kubeconfig, DAEMON_TOKEN)?;
        self.write_kubeconfig(&self.admin_kubeconfig, ADMIN_TOKEN)?;
        self.write_kubeconfig(&folder.join("controllers.kubeconfig"), CONTROLLERS_TOKEN)
    }

    fn etcd_command(&self, name: &str, ports: [usize; 2]) -> Command {
        let [client, peer] = ports.map(|port| format!("http://{}", self.ports[port].address()));
        let mut command = Command::new(&self.programs.etcd);
        command
            .arg("--name=e")
            .arg(file_flag("data-dir", &self.folder().join(name)))
            .args(["--log-level=warn", "--unsafe-no-fsync"])
            .arg(format!("--quota-backend-bytes={}", self.options.quota))
            // A lone member needs no long election: this saves half a second at every start.
            .args(["--heartbeat-interval=10", "--election-timeout=50"])
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=e={peer}"));
        command
    }

    fn apiserver_command(&self) -> Command {
        let file = |flag, name| file_flag(flag, &self.folder().join(name));
        let mut command = Command::new(&self.programs.apiserver);
        command
            .arg(format!("--etcd-servers=http://{}", self.ports[0].address()))
            .args([
                "--bind-address=127.0.0.1",
                &format!("--secure-port={}", self.ports[2].number()),
            ])
            // Loopback is refused for the endpoints of default/kubernetes; nobody connects here.
            .arg("--advertise-address=192.0.2.10")
            .arg(file("tls-cert-file", "server.crt"))
            .arg(file("tls-private-key-file", "server.key"))
            .arg(file("client-ca-file", "ca.crt"))
            .arg(file("token-auth-file", "tokens.csv"))
            .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg(file("service-account-key-file", "service-accounts.pub"))
            .arg(file("service-account-signing-key-file", "service-accounts.key"))
            .args(["--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true"])
            .arg("--profiling=false");
        if self.options.audit {
            command
                .arg(file("audit-policy-file", "audit.yaml"))
                .arg(file("audit-log-path", "audit.log"))
                // In MiB; the default of 100 would move events to another file.
                .arg("--audit-log-maxsize=100000");
        }
        if let Some(kind) = self.options.own_store {
            let store = format!("http://{}", self.ports[3].address());
            command.arg(format!("--etcd-servers-overrides={kind}#{store}"));
        }
        command.args(&self.options.extra_apiserver);
        command
    }

    fn controllers_command(&self) -> Command {
        let file = |flag, name| file_flag(flag, &self.folder().join(name));
        let mut command = Command::new(&self.programs.controllers);
        command
            .arg(file("kubeconfig", "controllers.kubeconfig"))
            .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
            .args([
                "--use-service-account-credentials=true",
                &format!("--controllers={CONTROLLERS}"),
            ])
            .arg(file("service-account-private-key-file", "service-accounts.key"))
            .arg(file("root-ca-file", "ca.crt"))
            // The default of 20/s would make the deletion of namespaces the slowest part of a test.
            .args(["--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-gc-syncs=5"]);
        command
    }
}

fn file_flag(flag: &str, file: &Path) -> String {
    format!("--{flag}={}", file.display())
}

/// Waits until `look` is true; ends early with the log when the process ends.
async fn ready(process: &mut Process, mut look: impl AsyncFnMut() -> bool) -> Result<()> {
    let what = format!("{} to be ready", process.log().display());
    let outcome = eventually(READY_DEADLINE, &what, async || {
        // Both: another process on the same port might answer.
        if let Err(error) = process.must_run() {
            return Some(Err(error));
        }
        look().await.then_some(Ok(()))
    })
    .await;
    outcome.map_err(|error| format!("{error}; the end of its log:\n{}", process.log_tail()))?
}

/// Whether a plain HTTP request is answered with success.
pub(super) async fn answers(request: reqwest::RequestBuilder) -> bool {
    request.send().await.is_ok_and(|response| response.status().is_success())
}

/// A certificate authority, the server's certificate, and the key pair for service accounts.
/// Elliptic curves, because making RSA keys costs more than starting etcd.
fn write_certificates(folder: &Path) -> Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

    let mut params = CertificateParams::new([])?;
    // Two names: where issuer and subject are the same, OpenSSL takes a certificate for self-signed.
    params.distinguished_name.push(DnType::CommonName, "understudy test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let names = [
        "127.0.0.1",
        "10.96.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut params = CertificateParams::new(names.map(String::from))?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;

    let service_accounts = KeyPair::generate()?;
    for (name, text) in [
        ("ca.crt", authority.pem()),
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
        ("service-accounts.key", service_accounts.serialize_pem()),
        ("service-accounts.pub", service_accounts.public_key_pem()),
    ] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// One request as the API server's audit log has it.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    pub verb: String,
    pub user: String,
    pub user_agent: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    /// Empty for requests on collections.
    pub name: String,
    /// When the request arrived, by the clock that all of a test run's processes share.
    pub at: jiff::Timestamp,
    /// 0 when no answer was sent.
    pub code: u16,
    pub dry_run: bool,
    /// The options of a deletion by the daemon.
    pub sent: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEvent {
    verb: String,
    user: RawUser,
    #[serde(default)]
    user_agent: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    request_received_timestamp: jiff::Timestamp,
    #[serde(default)]
    object_ref: BTreeMap<String, Value>,
    #[serde(default)]
    response_status: BTreeMap<String, Value>,
    #[serde(default)]
    request_object: Value,
}

#[derive(Deserialize)]
struct RawUser {
    #[serde(default)]
    username: String,
}

impl AuditEvent {
    fn parse(line: &str) -> Result<Self> {
        let RawEvent {
            verb,
            user,
            user_agent,
            request_uri,
            request_received_timestamp: at,
            object_ref,
            response_status,
            request_object: sent,
        } = serde_json::from_str(line)?;
        let part = |name: &str| {
            object_ref.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let code = response_status.get("code").and_then(Value::as_u64).unwrap_or_default();
        Ok(Self {
            verb,
            user: user.username,
            user_agent,
            group: part("apiGroup"),
            resource: part("resource"),
            subresource: part("subresource"),
            namespace: part("namespace"),
            name: part("name"),
            at,
            code: u16::try_from(code)?,
            dry_run: request_uri.contains("dryRun=All"),
            sent,
        })
    }

    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }

    pub fn key(&self) -> Result<ObjectKey> {
        let Self { group, resource, namespace, name, .. } = self;
        // Of a request on a namespace the log has its name in both places.
        let in_itself = group.is_empty() && resource == "namespaces";
        let namespace = if in_itself { "" } else { namespace };
        Ok(ObjectKey::new(group, resource, namespace, name)?)
    }

    /// A write of the daemon that changes something other than its own status and Events.
    pub fn is_restore_write(&self) -> bool {
        self.is_write()
            && !self.dry_run
            && self.user == DAEMON_USER
            && self.group != "understudy.dev"
            && self.resource != "events"
            // Asking what one may do is a POST, too.
            && self.group != "authorization.k8s.io"
    }
}
