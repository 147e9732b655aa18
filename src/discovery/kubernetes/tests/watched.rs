//! What is found while an API changes, forgets, fails and is away.

use shipper::HttpOptions;

use super::super::refresh::Look as _;
use super::api::{Fault, Gone, KubernetesApi, recorded};
use super::*;

/// How long something may take on a busy machine: a watch that failed is tried again after seconds.
const PATIENCE: Duration = Duration::from_secs(40);

fn looking(api: &KubernetesApi, role: Role, objects_max: usize) -> (Look, Arc<Stats>) {
    let stats = Arc::new(Stats::new("discovery.kubernetes.k", "kubernetes"));
    let place = KubernetesPlace {
        role,
        access: Access::Server {
            url: api.url.clone(),
            http: Box::new(HttpOptions::default()),
        },
        own_namespace: false,
        namespaces: Vec::new(),
        selectors: Vec::new(),
        attach: AttachMetadata::default(),
    };
    (Look::with_room(place, stats.clone(), objects_max), stats)
}

/// Looks until what is found is that: keys and addresses, or a problem.
async fn until(look: &mut Look, want: &[(&str, &str)]) {
    let mut last = String::new();
    let looking = async {
        loop {
            let found = look.look().await;
            let found = found.unwrap_or_else(|problem| vec![("".to_owned(), Err(problem))]);
            let shown = addresses(&found);
            let pairs: Vec<(&str, &str)> = shown
                .iter()
                .map(|(key, text)| (*key, text.as_str()))
                .collect();
            if pairs == want {
                return;
            }
            last = format!("{pairs:?}");
        }
    };
    let is_there = tokio::time::timeout(PATIENCE, looking).await.is_ok();
    assert!(is_there, "{last} does not become {want:?}");
}

#[tokio::test]
async fn objects_come_change_and_go_in_pages_and_chunks() {
    let api = KubernetesApi::start();
    api.page(2);
    for number in 1..=5 {
        api.put(&pod(&format!("p{number}"), &format!("10.0.0.{number}")));
    }
    let (mut look, stats) = looking(&api, Role::Pod, OBJECTS_MAX);
    let first = look.look().await.unwrap();
    assert_eq!(addresses(&first).len(), 5, "never a part of a list");
    let lists = api.heads();
    let lists = lists.iter().filter(|head| !head.contains("watch=true"));
    assert_eq!(lists.count(), 3);
    api.put(&pod("p1", "10.0.1.1"));
    for name in ["p2", "p3", "p4"] {
        api.delete(&pod(name, ""));
    }
    until(
        &mut look,
        &[("shop/p1", "10.0.1.1:80"), ("shop/p5", "10.0.0.5:80")],
    )
    .await;
    let (failed, objects, events) = stats.watched();
    assert_eq!((failed, objects), (0, 2));
    let of_pods: Vec<_> = events.iter().filter(|(kind, ..)| *kind == "pod").collect();
    assert_eq!(
        of_pods,
        [
            &("pod", "add", 5),
            &("pod", "update", 1),
            &("pod", "delete", 3)
        ]
    );
}

#[tokio::test]
async fn nothing_is_lost_while_a_watch_is_closed_or_forgotten() {
    for gone in [None, Some(Gone::Event), Some(Gone::Status)] {
        let api = KubernetesApi::start();
        api.put(&pod("a", "10.0.0.1"));
        api.put(&pod("b", "10.0.0.2"));
        let (mut look, _) = looking(&api, Role::Pod, OBJECTS_MAX);
        until(
            &mut look,
            &[("shop/a", "10.0.0.1:80"), ("shop/b", "10.0.0.2:80")],
        )
        .await;
        // What happens between two watches.
        api.fail("", Fault::Silent);
        api.delete(&pod("a", ""));
        api.put(&pod("c", "10.0.0.3"));
        match gone {
            Some(gone) => api.forget(gone),
            None => api.close(),
        }
        api.heal();
        until(
            &mut look,
            &[("shop/b", "10.0.0.2:80"), ("shop/c", "10.0.0.3:80")],
        )
        .await;
        api.put(&pod("d", "10.0.0.4"));
        until(
            &mut look,
            &[
                ("shop/b", "10.0.0.2:80"),
                ("shop/c", "10.0.0.3:80"),
                ("shop/d", "10.0.0.4:80"),
            ],
        )
        .await;
    }
}

/// Fails in that way, and is well again.
async fn fails(fault: Fault, said: &str) {
    let api = KubernetesApi::start();
    api.put(&pod("a", "10.0.0.1"));
    let (mut look, stats) = looking(&api, Role::Pod, OBJECTS_MAX);
    until(&mut look, &[("shop/a", "10.0.0.1:80")]).await;
    api.fail("", fault);
    let found = tokio::time::timeout(PATIENCE, look.look()).await.unwrap();
    let found = found.unwrap();
    let shown = addresses(&found);
    assert!(shown["pods"].starts_with(said), "{shown:?}");
    assert_eq!(shown["shop/a"], "10.0.0.1:80", "it stays");
    assert!(stats.watched().0 >= 1);
    api.heal();
    // Nothing came and nothing went: that it is well again is enough.
    until(&mut look, &[("shop/a", "10.0.0.1:80")]).await;
}

#[tokio::test]
async fn who_is_forbidden_keeps_what_was_found() {
    let said = "pods: watching: the answer is 403: pods is forbidden: User \"system:anonymous\" \
                cannot list resource \"pods\"";
    fails(Fault::Status(403), said).await;
}

#[tokio::test]
async fn a_server_with_trouble_keeps_what_was_found() {
    let said = "pods: watching: the answer is 500: something is wrong with pods";
    fails(Fault::Status(500), said).await;
}

#[tokio::test]
async fn a_server_that_is_away_keeps_what_was_found() {
    fails(Fault::Away, "pods: watching: ").await;
}

#[tokio::test]
async fn nothing_is_found_until_everything_joined_was_listed() {
    let api = KubernetesApi::start();
    for kind in ["pods", "services", "endpoints"] {
        api.put(&recorded(kind));
    }
    api.fail("services", Fault::Status(403));
    let (mut look, _) = looking(&api, Role::Endpoints, OBJECTS_MAX);
    let forbidden = "services: listing: the answer is 403: services is forbidden: User \
                     \"system:anonymous\" cannot list resource \"services\"";
    until(&mut look, &[("", forbidden)]).await;
    api.heal();
    let found = loop {
        let found = look.look().await.unwrap();
        if found.iter().all(|(_, group)| group.is_ok()) {
            break found;
        }
    };
    let shown = addresses(&found);
    assert!(
        shown["shop/web"].starts_with("10.244.1.5:8080 "),
        "{shown:?}"
    );
    let (_, group) = found.iter().find(|(key, _)| key == "shop/web").unwrap();
    let target = shown_of(group);
    assert!(target.contains("service_label_app=web"), "{target}");
}

fn shown_of(group: &Result<refresh::Group, String>) -> String {
    shown(&group.as_ref().unwrap()[0])
}

#[tokio::test]
async fn an_empty_cluster_has_an_empty_list_and_bad_answers_none() {
    let api = KubernetesApi::start();
    let (mut look, _) = looking(&api, Role::Node, OBJECTS_MAX);
    until(&mut look, &[]).await;
    api.fail("", Fault::Garbage);
    let (mut look, _) = looking(&api, Role::Node, OBJECTS_MAX);
    let problem = look.look().await.err().unwrap();
    let said = "nodes: listing: not what was asked for: ";
    assert!(problem.starts_with(said), "{problem}");
}

#[tokio::test]
async fn when_there_is_room_again_what_was_refused_comes() {
    let api = KubernetesApi::start();
    for number in 0..12 {
        api.put(&pod(&format!("p{number:02}"), "10.0.0.1"));
    }
    let (mut look, _) = looking(&api, Role::Pod, 10);
    let found = look.look().await.unwrap();
    let shown = addresses(&found);
    assert_eq!(shown.len(), 11);
    assert_eq!(shown["objects"], "there are more than 10 objects");
    for number in 0..9 {
        api.delete(&pod(&format!("p{number:02}"), ""));
    }
    let left = ["shop/p09", "shop/p10", "shop/p11"].map(|key| (key, "10.0.0.1:80"));
    until(&mut look, &left).await;
}

/// Has what kubectl would ask with.
fn write_kubeconfig(path: &Path, api: &KubernetesApi, token: &str) {
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: '{}'}}}}]\n\
         users: [{{name: u, user: {{token: {token}}}}}]\n",
        api.url
    );
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_file_of_kubectl_is_read_again_until_it_is_there_and_known() {
    let api = KubernetesApi::start();
    api.put(&pod("a", "10.0.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let (mut look, _) = looking(&api, Role::Pod, OBJECTS_MAX);
    look.place.access = Access::Kubeconfig(path.clone());
    let problem = look.look().await.err().unwrap();
    assert!(problem.contains("No such file"), "{problem}");
    write_kubeconfig(&path, &api, "first");
    until(&mut look, &[("shop/a", "10.0.0.1:80")]).await;
    api.fail("", Fault::Status(401));
    let found = look.look().await.unwrap();
    let said = "pods: watching: the answer is 401: something is wrong with pods";
    assert_eq!(addresses(&found)["pods"], said);
    write_kubeconfig(&path, &api, "second");
    // It is begun again: as long as nothing was listed, what was found stays as a whole.
    let problem = look.look().await.err().unwrap();
    assert!(
        problem.starts_with("pods: listing: the answer is 401"),
        "{problem}"
    );
    api.heads();
    api.heal();
    until(&mut look, &[("shop/a", "10.0.0.1:80")]).await;
    let heads = api.heads();
    let is_second = |head: &String| head.to_lowercase().contains("authorization: bearer second");
    assert!(heads.iter().all(is_second), "{heads:#?}");
}
