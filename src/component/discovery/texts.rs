//! Turns the arguments of components that find targets into what they mean.

use crate::component::document::{Document, Texts};
use crate::component::http_client::{BASIC_TEXTS, CLIENT_TEXTS, PROXY_TEXTS, TLS_TEXTS};

/// What the names of metric families that all of them have begin with.
macro_rules! metrics {
    ($($more:literal),*) => {
        &[
            "penstock_discovery_",
            "prometheus_sd_discovered_targets",
            "prometheus_sd_refresh_failures",
            "prometheus_sd_updates",
            $($more),*
        ]
    };
}

/// What an HTTP client may be told, in the block itself.
macro_rules! with_client {
    ($($own:expr),*) => {
        &[
            $($own,)*
            ("", CLIENT_TEXTS),
            ("", BASIC_TEXTS),
            ("", PROXY_TEXTS),
            ("tls_config", TLS_TEXTS),
            ("oauth2", PROXY_TEXTS),
            ("oauth2.tls_config", TLS_TEXTS),
        ]
    };
}

const FAILURE: &str = "- What cannot be had keeps the targets that were found last. It is counted at every look, logged \
     when it begins and when it ends, and shown in the component's debug info; the component stays healthy.\n\
     - More than 100,000 targets are such a failure.\n";

pub(crate) const DNS: Document = Document {
    example: r#"discovery.dns "backends" {
  names = ["backend.example.org"]
  type  = "A"
  port  = 9090
}
"#,
    texts: &[(
        "",
        &[
            (
                "names",
                "The names to look up, with the search domains of the system unless they end with a dot.",
            ),
            (
                "port",
                "The port of the targets; required for all types but `SRV`.",
            ),
            ("refresh_interval", "How often it looks."),
            ("type", "`SRV`, `A`, `AAAA`, `MX` or `NS`."),
        ],
    )],
    metrics: metrics!("prometheus_sd_dns_"),
    failure: "- A name that does not exist, or has no such record, has no targets; what is in `resolv.conf` is asked, \
              and the file read, at every look.\n\
              - A name that cannot be looked up keeps its targets. It is counted at every look, logged when it \
              begins and when it ends, and shown in the component's debug info; the component stays healthy.\n\
              - More than 100,000 targets are such a failure.\n",
};

pub(crate) const DOCKER: Document = Document {
    example: r#"discovery.docker "here" {
  host = "unix:///var/run/docker.sock"
  filter {
    name   = "label"
    values = ["metrics=true"]
  }
}
"#,
    texts: with_client!((
        "",
        &[
            (
                "filter",
                "Which containers are asked for; several of a name are alternatives.",
            ),
            (
                "filter.name",
                "What is compared: `name`, `label`, `status`, and whatever else the Docker API knows.",
            ),
            ("filter.values", "The values, one of which it must be."),
            (
                "host",
                "Where the Docker API is: `unix://` and a path, or `tcp://`, `http://` or `https://` and a host. `tcp` \
                 with a `tls_config` is https.",
            ),
            (
                "host_networking_host",
                "The address of containers in the network of the host.",
            ),
            (
                "match_first_network",
                "Whether only the first network of a container counts, by name.",
            ),
            ("port", "The port of containers that tell of none."),
            ("refresh_interval", "How often it asks."),
        ] as Texts
    )),
    metrics: metrics!(),
    failure: FAILURE,
};

pub(crate) const FILE: Document = Document {
    example: r#"discovery.file "hosts" {
  files = ["/etc/penstock/targets/*.json"]
}
"#,
    texts: &[(
        "",
        &[
            (
                "files",
                "Files with a list of `{\"targets\": [\"host:port\"], \"labels\": {\"name\": \"text\"}}`, in JSON or YAML by \
                 their extension (`.json`, `.yml`, `.yaml`); the last name of a path may be a pattern. At most 32 MiB each.",
            ),
            (
                "refresh_interval",
                "How often every file is read; one that changed is read within 5 s.",
            ),
        ],
    )],
    metrics: metrics!("prometheus_sd_file_"),
    failure: "- A file that cannot be read, or is no such document, keeps its targets; one that is gone has none. It is \
              counted at every look, logged when it begins and when it ends, and shown in the component's debug info; \
              the component stays healthy.\n\
              - More than 100,000 targets are such a failure.\n",
};

pub(crate) const FILE_MATCH: Document = Document {
    example: r#"local.file_match "logs" {
  path_targets = [{
    __path__         = "/var/log/**/*.log",
    __path_exclude__ = "/var/log/private/**",
    job              = "system",
  }]
}
"#,
    texts: &[(
        "",
        &[
            (
                "ignore_older_than",
                "Files that were not changed for longer are left out; `0s`: none is.",
            ),
            (
                "path_targets",
                "Labels with a pattern for paths in `__path__`, and one for what is left out in `__path_exclude__`: `*`, \
                 `?`, `[a-z]`, `{a,b}` within a name, `**` for any directories. Each file that matches is a target with \
                 these labels and its absolute path in `__path__`.",
            ),
            ("sync_period", "How often it looks."),
        ],
    )],
    metrics: metrics!(),
    failure: "- What cannot be read is not there. More than 100,000 targets, or a million entries of directories looked \
              at for a pattern, keep the targets that were found last: counted, logged, and in the debug info.\n",
};

pub(crate) const HTTP: Document = Document {
    example: r#"discovery.http "inventory" {
  url              = "https://inventory.example.org/targets"
  refresh_interval = "2m"
}
"#,
    texts: with_client!((
        "",
        &[
            (
                "refresh_interval",
                "How often it asks; the server is told in `X-Prometheus-Refresh-Interval-Seconds`.",
            ),
            (
                "url",
                "Where a list of `{\"targets\": [\"host:port\"], \"labels\": {\"name\": \"text\"}}` is: 200 with \
                 `application/json`, at most 32 MiB, within the interval and a minute.",
            ),
        ] as Texts
    )),
    metrics: metrics!("prometheus_sd_http_"),
    failure: FAILURE,
};

pub(crate) const KUBERNETES: Document = Document {
    example: r#"discovery.kubernetes "pods" {
  role = "pod"
  namespaces {
    names = ["shop", "billing"]
  }
  selectors {
    role  = "pod"
    label = "app.kubernetes.io/part-of=shop"
  }
  attach_metadata {
    node = true
  }
}
"#,
    texts: with_client!((
        "",
        &[
            (
                "api_server",
                "The URL of the API. Without it, and without `kubeconfig_file`, this is a pod: the service account \
                     of it is used, whose token is read again when it changes.",
            ),
            ("attach_metadata", "Whose labels targets have too."),
            (
                "attach_metadata.namespace",
                "Labels and annotations of the namespace: all roles but `node`.",
            ),
            (
                "attach_metadata.node",
                "Labels and annotations of the node: roles `pod`, `endpoints` and `endpointslice`.",
            ),
            (
                "kubeconfig_file",
                "A file as kubectl has it; the current context says where the API is and who asks. It is read \
                     when the component begins, and again where the API does not know who asks (401); files and \
                     programs it names are asked again. Arguments of an HTTP \
                     client do not go with it.",
            ),
            (
                "namespaces",
                "Which namespaces are watched; without it all."
            ),
            (
                "namespaces.names",
                "Their names, at most 256; each has watches of its own.",
            ),
            (
                "namespaces.own_namespace",
                "Whether that of this pod is one of them: only without `api_server` and `kubeconfig_file`.",
            ),
            (
                "role",
                "What has targets: `node`, `pod`, `service`, `endpoints`, `endpointslice` or `ingress`.",
            ),
            (
                "selectors",
                "Which objects count, one block for each kind. `endpoints` and `endpointslice` watch pods and \
                     services too.",
            ),
            ("selectors.field", "A field selector; empty: every object."),
            ("selectors.label", "A label selector; empty: every object."),
            (
                "selectors.role",
                "The kind: that of the role, or what it watches too."
            ),
        ] as Texts
    )),
    metrics: metrics!("prometheus_sd_kubernetes_"),
    failure: KUBERNETES_FAILURE,
};

const KUBERNETES_FAILURE: &str = "- A list or a watch that fails is tried again after 0.8 s to 30 s, counted each time, logged when it begins and \
     when it ends, and shown in the component's debug info; the targets that were found last stay, and the component \
     stays healthy. Afterwards nothing is missing: a watch is resumed, or everything is listed again.\n\
     - Nothing is exported until everything that is watched was listed once.\n\
     - More than 100,000 targets, or 200,000 objects, are such a failure.\n";

pub(crate) const PROCESS: Document = Document {
    example: r#"discovery.docker "here" {
  host = "unix:///var/run/docker.sock"
}

discovery.process "all" {
  join = discovery.docker.here.targets
  discover_config {
    cwd = false
  }
}
"#,
    texts: &[
        (
            "",
            &[
                ("discover_config", "Which labels processes get."),
                (
                    "join",
                    "Targets of others: a process in the container of one gets its labels, and they stand in the list too.",
                ),
                ("refresh_interval", "How often it looks."),
            ],
        ),
        (
            "discover_config",
            &[
                (
                    "cgroup_path",
                    "`__meta_cgroup_path`, with `|` between several.",
                ),
                ("commandline", "`__meta_process_commandline`."),
                (
                    "container_id",
                    "`__container_id__`, of processes in a container.",
                ),
                ("cwd", "`__meta_process_cwd`."),
                ("exe", "`__meta_process_exe`."),
                ("uid", "`__meta_process_uid`."),
                (
                    "username",
                    "`__meta_process_username`, of users in `/etc/passwd`.",
                ),
            ],
        ),
    ],
    metrics: metrics!(),
    failure: "- A process that ended meanwhile, or whose program, directory or command line may not be read, is left \
              out: to see those of other users it takes root. Threads of the kernel have no program.\n\
              - Where there is no `/proc`, or more than 100,000 processes, the last targets stay.\n",
};
