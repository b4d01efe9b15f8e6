//! Services of marks, made by an unmodified ipvsadm: two ports of a VIP as one service, and a VIP that is on no port of the
//! gateway.

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, get, run};

fn mark_add(gateway: &Gateway, rule: &str) {
    gateway.command(&format!("mark add {rule}"));
}

#[test]
fn a_mark_makes_one_service_of_two_ports() {
    let lab = Lab::two_arm(2, 1);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let _servers: Vec<_> = [(0, 80), (0, 8080), (1, 80), (1, 8080)]
        .into_iter()
        .map(|(index, port)| {
            let name = format!("rs{index}-{port}");
            Nginx::start(&lab.reals[usize::from(index)], lab.path(), &name, real(index, port))
        })
        .collect();
    mark_add(&gateway, "web --fwmark 1 --destination 10.0.0.100/32 --protocol tcp --destination-port 80");
    mark_add(&gateway, "proxy --fwmark 1 --destination 10.0.0.100/32 --protocol tcp --destination-port 8080");
    let ipvsadm = |arguments: &str| gateway.ipvsadm(&lab.gateway, arguments);
    ipvsadm("-A -f 1 -s rr -b flag-3");
    ipvsadm("-a -f 1 -r 10.1.0.11:0 -m");
    ipvsadm("-a -f 1 -r 10.1.0.12:0 -m");
    let saved = "-A -f 1 -s rr -b flag-3\n-a -f 1 -r 10.1.0.11:0 -m -w 1\n-a -f 1 -r 10.1.0.12:0 -m -w 1\n";
    assert_eq!(ipvsadm("-S -n"), saved);
    // One round for both ports.
    let pages = [80, 8080, 80, 8080].map(|port| lab.client.enter(|| get(vip(port), "/")).unwrap());
    let of = |page: &str| ["rs0-80 ", "rs0-8080 ", "rs1-80 ", "rs1-8080 "].iter().position(|name| page.contains(name));
    let of: Vec<_> = pages.iter().map(|page| of(page).unwrap()).collect();
    assert!(of == [2, 1, 2, 1] || of == [0, 3, 0, 3], "{of:?}: {pages:?}");
    let listed = gateway.command("service list");
    assert!(listed.contains("FWM  1 rr"), "{listed}");
    let listed = ipvsadm("-L -n -f 1");
    assert!(listed.contains("FWM  1 rr (flag-3)"), "{listed}");
    gateway.command("mark del proxy");
    assert!(lab.client.enter(|| get(vip(8080), "/")).is_err(), "no service is for it any more");
    assert!(lab.client.enter(|| get(vip(80), "/")).is_ok());
    ipvsadm("-D -f 1");
    assert_eq!(ipvsadm("-S -n"), "");
}

/// The classic of transparent caches: whatever goes to port 80 anywhere is served by those inside.
#[test]
fn what_enters_by_a_port_is_served_wherever_it_goes() {
    let lab = Lab::two_arm(1, 1);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    mark_add(&gateway, "caches --fwmark 2 --port wan --protocol tcp --destination-port 80");
    gateway.command("service add -f 2 -s rr --mode fullnat");
    gateway.command("real add -f 2 -r 10.1.0.11");
    run(lab.client.command("ip").args(["route", "add", "198.51.100.0/24", "via", "10.0.0.1"]));
    let page = lab.client.enter(|| get(([198, 51, 100, 7], 80), "/")).unwrap();
    assert!(page.contains("rs0 "), "{page}");
}
