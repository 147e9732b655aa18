//! Turns where the API is said to be into a URL, and into how requests say who sends them.
//!
//! | said | URL | credentials |
//! |---|---|---|
//! | nothing | the environment of a pod | the service account's token and certificates, read again when they change |
//! | `api_server` | that | the component's arguments |
//! | `kubeconfig_file` | the cluster of its current context | the user of that context; a program it names is run |
//!
//! # Failure
//! - What is missing is an error in words, without secrets; it is looked for again.

use std::path::{Path, PathBuf};

use kube::client::ConfigExt;
use kube::client::middleware::AuthLayer;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig};
use secrecy::ExposeSecret;
use shipper::{Auth, HttpOptions, SecretSource};

use super::super::{TEXT_BYTES_MAX, blocking};

/// Where a pod has its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the API is said to be.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// This is a pod of the cluster.
    InCluster,
    Server {
        url: String,
        http: Box<HttpOptions>,
    },
    Kubeconfig(PathBuf),
}

/// Where the API is.
pub(super) struct Resolved {
    pub(super) url: String,
    pub(super) http: HttpOptions,
    /// Credentials that a program gives.
    pub(super) layer: Option<AuthLayer>,
    /// The namespace of the pod, where this is one and that was asked for.
    pub(super) namespace: Option<String>,
}

impl Resolved {
    fn new(url: &str, http: HttpOptions) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            http,
            layer: None,
            namespace: None,
        }
    }
}

impl Access {
    /// Where the API is now; the namespace too where that `is_own`.
    pub(super) async fn resolve(&self, is_own: bool) -> Result<Resolved, String> {
        match self {
            Self::InCluster => {
                let look = move || {
                    let variable = |name: &str| std::env::var(name).ok();
                    in_cluster(variable, Path::new(ACCOUNT), is_own)
                };
                blocking(look).await
            }
            Self::Server { url, http } => Ok(Resolved::new(url, (**http).clone())),
            Self::Kubeconfig(path) => kubeconfig(path.clone()).await,
        }
    }
}

fn in_cluster(
    variable: impl Fn(&str) -> Option<String>,
    account: &Path,
    is_own: bool,
) -> Result<Resolved, String> {
    let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST");
    let (Some(host), Some(port)) = (host, variable("KUBERNETES_SERVICE_PORT")) else {
        let problem = "this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; \
                       api_server or kubeconfig_file says where the cluster is";
        return Err(problem.to_owned());
    };
    let file = |name: &str| SecretSource::File(account.join(name));
    let mut http = HttpOptions {
        auth: Auth::bearer(file("token")),
        ..HttpOptions::default()
    };
    http.tls.ca = Some(file("ca.crt"));
    let address = super::super::target::host_port(&host, port);
    let mut resolved = Resolved::new(&format!("https://{address}"), http);
    if is_own {
        let path = account.join("namespace");
        let name = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        resolved.namespace = Some(name.trim().to_owned());
    }
    Ok(resolved)
}

async fn kubeconfig(path: PathBuf) -> Result<Resolved, String> {
    let shown = path.display().to_string();
    let wrong = move |problem: String| format!("kubeconfig file {shown}: {problem}");
    let read = blocking(move || {
        let length = std::fs::metadata(&path).map_err(|error| error.to_string())?;
        if length.len() > TEXT_BYTES_MAX {
            return Err(format!("it has more than {TEXT_BYTES_MAX} bytes"));
        }
        Kubeconfig::read_from(&path).map_err(|error| error.to_string())
    });
    let config = read.await.map_err(&wrong)?;
    from_kubeconfig(config).await.map_err(wrong)
}

async fn from_kubeconfig(config: Kubeconfig) -> Result<Resolved, String> {
    let (cluster, user) = current(&config)?;
    let server = cluster.server.as_deref().unwrap_or_default();
    if !server.starts_with("http://") && !server.starts_with("https://") {
        return Err("the server of its cluster must begin with http:// or https://".to_owned());
    }
    let impersonates = user.impersonate.is_some()
        || user.impersonate_uid.is_some()
        || user.impersonate_groups.is_some()
        || user.impersonate_user_extra.is_some();
    if impersonates {
        return Err("acting as another user is not supported".to_owned());
    }
    let mut http = HttpOptions::default();
    http.tls.ca = pem(
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
        "certificate-authority-data",
    )?;
    http.tls.insecure_skip_verify = cluster.insecure_skip_tls_verify.unwrap_or(false);
    http.tls.server_name = cluster.tls_server_name.clone().unwrap_or_default();
    http.tls.cert = pem(
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        "client-certificate-data",
    )?;
    let key = user.client_key_data.as_ref();
    http.tls.key = pem(
        key.map(ExposeSecret::expose_secret),
        user.client_key.as_deref(),
        "client-key-data",
    )?;
    let proxy = cluster.proxy_url.as_deref().filter(|url| !url.is_empty());
    http.proxy.proxy_url = proxy.map(Into::into);
    http.auth = auth(user);
    if let Err(invalid) = http.validate() {
        return Err(invalid.problem);
    }
    let mut resolved = Resolved::new(server, http);
    if user.exec.is_some() || user.auth_provider.is_some() {
        resolved.layer = program(&resolved.url, config).await?;
    }
    Ok(resolved)
}

/// The cluster and the user of the current context.
fn current(config: &Kubeconfig) -> Result<(&Cluster, &AuthInfo), String> {
    let name = config.current_context.as_deref().unwrap_or_default();
    let context = config.contexts.iter().find(|named| named.name == name);
    let context = context.and_then(|named| named.context.as_ref());
    let context = context.ok_or_else(|| format!("there is no context {name:?}"))?;
    let mut clusters = config.clusters.iter();
    let cluster = clusters.find(|named| named.name == context.cluster);
    let cluster = cluster.and_then(|named| named.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", context.cluster))?;
    let name = context.user.as_deref().unwrap_or_default();
    let user = config.auth_infos.iter().find(|named| named.name == name);
    let user = user.and_then(|named| named.auth_info.as_ref());
    let user = user.ok_or_else(|| format!("there is no user {name:?}"))?;
    Ok((cluster, user))
}

/// Text in base64, or a file with it.
fn pem(data: Option<&str>, file: Option<&str>, name: &str) -> Result<Option<SecretSource>, String> {
    use base64::Engine as _;
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let text = base64::engine::general_purpose::STANDARD.decode(data.trim());
        let text = text.map_err(|_| format!("{name} is not base64"))?;
        let text = String::from_utf8(text).map_err(|_| format!("{name} is not PEM"))?;
        return Ok(Some(SecretSource::Text(text.as_str().into())));
    }
    let file = file.filter(|file| !file.is_empty());
    Ok(file.map(|file| SecretSource::File(file.into())))
}

/// As kubectl: a token goes before a file with one, both before a password.
fn auth(user: &AuthInfo) -> Auth {
    let text = |secret: &secrecy::SecretString| SecretSource::Text(secret.expose_secret().into());
    if let Some(token) = &user.token {
        return Auth::bearer(text(token));
    }
    if let Some(path) = user.token_file.as_ref().filter(|path| !path.is_empty()) {
        return Auth::bearer(SecretSource::File(path.into()));
    }
    match (&user.username, &user.password) {
        (Some(username), Some(password)) => Auth::Basic {
            username: username.clone(),
            password: text(password),
        },
        _ => Auth::None,
    }
}

/// Credentials that a program gives, renewed before they expire.
async fn program(server: &str, config: Kubeconfig) -> Result<Option<AuthLayer>, String> {
    let (_, user) = current(&config)?;
    let program = user.exec.as_ref();
    let config = if program.is_some_and(|program| program.provide_cluster_info) {
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        config.map_err(|error| error.to_string())?
    } else {
        let server = server.parse();
        let server = server.map_err(|_| "the server of its cluster is no URL".to_owned())?;
        let mut own = kube::Config::new(server);
        own.auth_info = user.clone();
        own
    };
    // What a program printed may be a credential, also where it failed: it is not repeated.
    let run = move || {
        let problem = "the program that gives credentials failed, or gave none".to_owned();
        config.auth_layer().map_err(|_| problem)
    };
    blocking(run).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_its_account() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("namespace"), "monitoring\n").unwrap();
        let variable = |host: &'static str| {
            move |name: &str| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
                "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
                _ => None,
            }
        };
        let resolved = in_cluster(variable("fd00::1"), dir.path(), true).unwrap();
        assert_eq!(resolved.url, "https://[fd00::1]:443");
        assert_eq!(resolved.namespace.as_deref(), Some("monitoring"));
        let file = |name: &str| SecretSource::File(dir.path().join(name));
        assert_eq!(resolved.http.auth, Auth::bearer(file("token")));
        assert_eq!(resolved.http.tls.ca, Some(file("ca.crt")));
        let outside = in_cluster(variable(""), dir.path(), true).err().unwrap();
        assert!(outside.starts_with("this is no pod: "), "{outside}");
        std::fs::remove_file(dir.path().join("namespace")).unwrap();
        let nameless = in_cluster(variable("h"), dir.path(), true).err().unwrap();
        assert!(nameless.starts_with("cannot read "), "{nameless}");
        assert!(in_cluster(variable("h"), dir.path(), false).is_ok());
    }

    async fn resolved(user: &str) -> Result<Resolved, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://h:6443/prefix/', \
             certificate-authority: ca.pem, tls-server-name: kubernetes}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let resolved = Access::Kubeconfig(path.clone()).resolve(false).await;
        if let Ok(resolved) = &resolved {
            let ca = dir.path().join("ca.pem");
            assert_eq!(resolved.http.tls.ca, Some(SecretSource::File(ca)));
        }
        resolved
    }

    #[tokio::test]
    async fn a_file_of_kubectl_says_where_and_who() {
        let text = |text: &str| SecretSource::Text(text.into());
        let known = resolved("token: t, username: n, password: p").await;
        let known = known.unwrap();
        assert_eq!(known.url, "https://h:6443/prefix");
        assert_eq!(known.http.auth, Auth::bearer(text("t")));
        assert_eq!(known.http.tls.server_name, "kubernetes");
        let known = resolved("username: n, password: p").await.unwrap();
        let (username, password) = ("n".to_owned(), text("p"));
        assert_eq!(known.http.auth, Auth::Basic { username, password });
        let user = "client-certificate-data: Yw==, client-key-data: aw==";
        let known = resolved(user).await.unwrap();
        assert_eq!(known.http.auth, Auth::None);
        assert_eq!(known.http.tls.cert, Some(text("c")));
        assert_eq!(known.http.tls.key, Some(text("k")));
        let known = resolved("tokenFile: /t").await.unwrap();
        let file = SecretSource::File("/t".into());
        assert_eq!(known.http.auth, Auth::bearer(file));
    }

    #[tokio::test]
    async fn what_is_wrong_with_it_is_said_without_secrets() {
        for (user, problem) in [
            ("as: admin", "acting as another user is not supported"),
            (
                "client-certificate-data: '?', client-key-data: aw==",
                "client-certificate-data is not base64",
            ),
            (
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, \
                 args: ['-c', 'echo hunter2; exit 1'], interactiveMode: Never}",
                "the program that gives credentials failed, or gave none",
            ),
        ] {
            let found = resolved(user).await.err().unwrap();
            assert!(found.ends_with(problem), "{found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
        let missing = Access::Kubeconfig("/nowhere/config".into());
        let missing = missing.resolve(false).await.err().unwrap();
        assert!(
            missing.starts_with("kubeconfig file /nowhere/config: "),
            "{missing}"
        );
    }

    #[tokio::test]
    async fn a_program_gives_credentials() {
        let credential = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}"#;
        let user = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/echo, \
             args: ['{credential}'], interactiveMode: Never}}"
        );
        let known = resolved(&user).await.map_err(|e| println!("{e}")).unwrap();
        assert!(known.layer.is_some());
    }
}
