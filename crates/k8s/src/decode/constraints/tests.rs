use std::collections::BTreeSet;

use gpu_autoscaler_model::{CLAIM_UNKNOWN, NOT_COVERED};
use serde_json::{Value, json};

use super::*;

fn read(spec: Value) -> Constraints {
    let pod = json!({"metadata": {"name": "pod"}, "spec": spec, "status": {
        "resourceClaimStatuses": [
            {"name": "made", "resourceClaimName": "pod-made-x"}, {"name": "none"},
        ],
    }});
    let pod: wire::Pod = serde_json::from_value(pod).expect("well formed");
    let labels = Labels::new([("app".into(), "web".into()), ("hash".into(), "h1".into())]);
    of_pod(&pod, &"team".into(), &labels, &mut Interner::<str>::default())
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }
}

#[test]
fn what_a_node_must_be_is_read() {
    let read = read(json!({
        "nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"},
        "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [
                    {"key": "zone", "operator": "NotIn", "values": ["a"]},
                    {"key": "generation", "operator": "Gt", "values": ["6"]},
                ]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                {},
            ]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 7, "preference": {"matchExpressions": [
                    {"key": "disk", "operator": "Exists"},
                ]}},
            ],
        }},
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "value": "a"},
            {"operator": "Exists"},
        ],
    }));
    assert_eq!(read.node_selector, [("nvidia.com/gpu.product".into(), "Tesla-T4".into())]);
    let terms = read.node_terms.expect("terms");
    assert_eq!(terms.len(), 3);
    assert_eq!(terms[0].labels[1].operator, Operator::Gt(6));
    assert_eq!(terms[1].name, [equals("metadata.name", "n")]);
    assert_eq!(terms[2], NodeSelectorTerm::default());
    assert_eq!(read.preferred_nodes[0].0, 7);
    let toleration = |key: &str, value: Option<&str>, effect| Toleration {
        key: key.into(),
        value: value.map(Into::into),
        effect,
    };
    let expected = [
        toleration("gpu", None, Some(TaintEffect::NoSchedule)),
        toleration("team", Some("a"), None),
        toleration("", None, None),
    ];
    assert_eq!(read.tolerations, expected);
    assert!(read.uncovered.is_empty(), "{:?}", read.uncovered);
}

#[test]
fn what_its_neighbors_must_be_is_read_with_the_namespaces_that_count() {
    let term = |more: Value| {
        let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "1"}}});
        for (key, value) in more.as_object().expect("an object") {
            term[key] = value.clone();
        }
        term
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let read = read(json!({"affinity": {
        "podAffinity": {
            required: [
                term(json!({})),
                term(json!({"namespaces": ["x"]})),
                term(json!({"namespaces": ["x"], "namespaceSelector": {}})),
                {"topologyKey": "zone"},
            ],
            preferred: [{"weight": 3, "podAffinityTerm": term(json!({}))}],
        },
        "podAntiAffinity": {preferred: [{"weight": 4, "podAffinityTerm": term(json!({}))}]},
    }}));
    let scopes: Vec<_> = read.pod_affinity.iter().map(|term| term.namespaces.clone()).collect();
    let these = |name: &str| NamespaceScope::These(vec![name.into()]);
    assert_eq!(scopes, [these("team"), these("x"), NamespaceScope::All, these("team")]);
    assert_eq!(
        read.pod_affinity[0].selector.clone().expect("one").requirements,
        [equals("a", "1")]
    );
    assert_eq!(read.pod_affinity[3].selector, None, "no selector selects nothing");
    let weights: Vec<i32> = read.preferred_pods.iter().map(|(weight, _)| *weight).collect();
    assert_eq!(weights, [3, -4]);
    assert!(read.uncovered.is_empty(), "{:?}", read.uncovered);
}

#[test]
fn spread_counts_pods_of_the_same_revision() {
    let read = read(json!({"topologySpreadConstraints": [
        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
         "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["hash", "absent"],
         "minDomains": 3, "nodeTaintsPolicy": "Honor"},
        {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"},
    ]}));
    let [spread] = &read.spread[..] else { panic!("{:?}", read.spread) };
    let selector = spread.selector.as_ref().expect("a selector");
    assert_eq!(selector.requirements, [equals("app", "web"), equals("hash", "h1")]);
    assert_eq!((spread.max_skew, spread.min_domains), (2, Some(3)));
    assert!(spread.honor_node_affinity && spread.honor_taints);
}

#[test]
fn ports_of_sidecars_count_and_those_of_other_init_containers_do_not() {
    let port = |number: u32| json!([{"containerPort": 80, "hostPort": number}]);
    let read = read(json!({
        "containers": [
            {"ports": port(80)},
            {"ports": [{"containerPort": 81}, {"hostPort": 0}]},
            {"ports": [{"hostPort": 53, "hostIP": "10.0.0.1", "protocol": "UDP"}]},
        ],
        "initContainers": [
            {"ports": port(90), "restartPolicy": "Always"},
            {"ports": port(91)},
        ],
    }));
    let found: Vec<_> =
        read.host_ports.iter().map(|p| (p.port, p.protocol.as_ref(), p.ip.as_ref())).collect();
    assert_eq!(found, [(90, "TCP", ""), (80, "TCP", ""), (53, "UDP", "10.0.0.1")]);
}

/// A spec for every path of the list, which is thereby found, and for nothing else.
#[test]
fn what_is_not_covered_is_listed_and_the_list_holds_nothing_else() {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let odd = json!([{"key": "a", "operator": "Near", "values": ["b"]}]);
    let specs = [
        json!({"resourceClaims": [{"name": "gpu"}]}),
        json!({"schedulerName": "volcano"}),
        json!({"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}),
        json!({"schedulingGroup": {"podGroupName": "g"}}),
        json!({"workloadRef": {"name": "w"}}),
        json!({"volumes": [{"awsElasticBlockStore": {"volumeID": "v"}}]}),
        json!({"volumes": [{"azureDisk": {}}]}),
        json!({"volumes": [{"gcePersistentDisk": {}}]}),
        json!({"volumes": [{"iscsi": {}}]}),
        json!({"volumes": [{"rbd": {}}]}),
        json!({"affinity": {"podAntiAffinity": {required: [
            {"topologyKey": "zone", "namespaceSelector": {"matchLabels": {"a": "b"}}},
        ]}}}),
        json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [
            {"matchExpressions": odd},
        ]}}}}),
        json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchExpressions": odd}},
        ]}),
        json!({"tolerations": [{"key": "a", "operator": "Gt", "value": "1"}]}),
        json!({"initContainers": [{"restartPolicyRules": [{"action": "RestartAllContainers"}]}]}),
        json!({"hostNetwork": true, "hostUsers": false}),
    ];
    let mut found = BTreeSet::new();
    for spec in specs {
        let paths = read(spec.clone()).uncovered;
        assert_eq!(paths.len(), 1, "{spec}: {paths:?}");
        found.insert(paths[0].to_string());
    }
    let listed = NOT_COVERED.iter().map(|(path, _)| *path);
    // The others show once a claim is looked up.
    let of_pod = listed.filter(|path| path.starts_with("spec.") && *path != CLAIM_UNKNOWN);
    assert_eq!(found, of_pod.map(str::to_owned).collect());
}

#[test]
fn what_the_default_pod_has_is_covered() {
    let read = read(json!({
        "schedulerName": "default-scheduler", "schedulingGates": [], "resourceClaims": [],
        "schedulingGates": [{"name": "gpu-autoscaler.io/packing"}],
        "hostNetwork": true, "dnsPolicy": "ClusterFirst",
        "volumes": [{"name": "token", "projected": {}}, {"name": "scratch", "emptyDir": {}}],
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": 300},
        ],
    }));
    assert!(read.uncovered.is_empty(), "{:?}", read.uncovered);
}

#[test]
fn an_unreadable_anti_affinity_still_keeps_others_away() {
    let read = read(json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {},
             "namespaceSelector": {"matchLabels": {"a": "b"}}},
        ],
    }}}));
    assert_eq!(read.pod_anti_affinity[0].namespaces, NamespaceScope::All);
}

#[test]
fn claims_are_read_by_name_and_an_ephemeral_one_is_named_after_its_pod() {
    let read = read(json!({"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "again", "persistentVolumeClaim": {"claimName": "c"}},
    ]}));
    let claim = |name: &str, ephemeral| ClaimName { name: name.into(), ephemeral };
    assert_eq!(read.claims, [claim("c", false), claim("pod-scratch", true)]);
    assert!(read.uncovered.is_empty(), "{:?}", read.uncovered);
}

#[test]
fn device_claims_are_read_by_name_and_one_from_a_template_by_the_name_in_the_status() {
    let read = read(json!({"resourceClaims": [
        {"name": "shared", "resourceClaimName": "c"},
        {"name": "made", "resourceClaimTemplateName": "t"},
        {"name": "none", "resourceClaimTemplateName": "t"},
    ]}));
    let claim = |name: &str, ephemeral| ClaimName { name: name.into(), ephemeral };
    assert_eq!(read.device_claims, [claim("c", false), claim("pod-made-x", true)]);
    assert!(read.uncovered.is_empty(), "{:?}", read.uncovered);
}
