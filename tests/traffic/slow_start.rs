//! Slow start of real servers, with real clients.

use crate::lab::client::get_many;
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, wait_for};

/// The second real server's weight as workers have it.
fn weight_now(gateway: &Gateway) -> u64 {
    let real = &gateway.json("service list")[0]["real_servers"][1];
    assert_eq!(real["weight"], 100, "what is configured is listed");
    real["effective_weight"].as_u64().unwrap_or(100)
}

#[test]
fn a_new_real_server_gets_its_share_little_by_little_and_so_does_one_that_comes_back() {
    let lab = Lab::two_arm(2, 1);
    let start = |(index, namespace): (usize, &Namespace)| {
        Nginx::start(namespace, lab.path(), &format!("rs{index}"), real(index as u8, 80))
    };
    let _servers: Vec<_> = lab.reals.iter().enumerate().map(start).collect();
    let gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "wrr", &[(real(0, 80), 100)]));
    gateway.command("service edit -t 10.0.0.100:80 --slow-start 50000");
    assert!(!gateway.command("service list").contains(" of 100"), "who was there is warm");
    gateway.command("real add -t 10.0.0.100:80 -r 10.1.0.12:80 -w 100");
    assert_eq!(weight_now(&gateway), 1);
    assert!(gateway.command("service list").contains("1 of 100"), "{}", gateway.command("service list"));
    assert_eq!(
        gateway.ipvsadm(&lab.gateway, "-S -n").matches("-w 100").count(),
        2,
        "IPVS's tools see what is configured"
    );
    let (names, _) = get_many(&lab.client, vip(80), 50);
    assert!(names.get("rs1").is_none_or(|&count| count == 1), "one in a hundred and one: {names:?}");

    // So much of its time is over already that its weight rises before our eyes.
    gateway.command("service edit -t 10.0.0.100:80 --slow-start 12");
    wait_for("its weight to rise", PATIENCE, || (2..100).contains(&weight_now(&gateway)).then_some(()));
    wait_for("its whole weight", PATIENCE, || (weight_now(&gateway) == 100).then_some(()));
    let metric = |gateway: &Gateway| {
        let metrics = gateway.metrics(&lab);
        let mut weights = metrics.iter().filter(|(key, _)| key.starts_with("fullgate_real_server_effective_weight{"));
        weights.find(|(key, _)| key.contains("10.1.0.12:80")).map(|(_, &weight)| weight)
    };
    assert_eq!(metric(&gateway), Some(100.0));
    let (names, _) = get_many(&lab.client, vip(80), 40);
    assert_eq!((names["rs0"], names["rs1"]), (20, 20));

    gateway.command("service edit -t 10.0.0.100:80 --slow-start 50000");
    assert_eq!(weight_now(&gateway), 100, "who is warm stays so");
    gateway.command("real edit -t 10.0.0.100:80 -r 10.1.0.12:80 -w 0");
    gateway.command("real edit -t 10.0.0.100:80 -r 10.1.0.12:80 -w 100");
    assert_eq!(weight_now(&gateway), 1);
    assert_eq!(metric(&gateway), Some(1.0));
    let refused = gateway.cli("service edit -t 10.0.0.100:80 -s mh");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("slow_start: scheduler mh gives no shares that could rise with a weight"), "{said}");
}
