//! Turns numbers into the labels of the series that benches decode: 11 labels, about 321 encoded bytes.

use ingest::proto::Label;

/// Series `at` of the fleet: 100 metrics of 1000 pods.
pub(crate) fn labels(at: usize) -> Vec<Label> {
    let (pod, metric) = (at / 100, at % 100);
    let hash = (pod * 2_654_435_761) % 0xffff_ffff;
    let address = format!("10.{}.{}.17:10250", pod / 250, pod % 250);
    [
        (
            "__name__",
            format!("container_network_receive_bytes_total_{metric:03}"),
        ),
        ("cluster", "production-eu-west-1".into()),
        ("container", format!("payment-gateway-{}", pod % 40)),
        ("endpoint", "https-metrics".into()),
        (
            "image",
            format!("registry.local/payment-gateway@{hash:08x}"),
        ),
        ("instance", address),
        ("job", "kubelet".into()),
        ("metrics_path", "/metrics/cadvisor".into()),
        ("namespace", format!("team-{}", pod % 25)),
        (
            "node",
            format!("ip-10-{}-{}-17.internal", pod / 250, pod % 250),
        ),
        ("pod", format!("payment-gateway-{hash:08x}-{pod:05}")),
    ]
    .map(|(name, value)| Label {
        name: name.into(),
        value,
    })
    .to_vec()
}
