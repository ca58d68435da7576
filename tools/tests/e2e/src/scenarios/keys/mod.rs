//! Every key of config.json, applied on a device and read back through the service that it is for.

mod commands;
mod machine;
mod network;
mod services;
mod stick;

use super::wiped::data_is_wiped;
use crate::harness::checks::Checks;
use crate::harness::device::every_unit_came_up;
use crate::harness::disk::Disk;
use crate::harness::lab::Lab;
use crate::harness::tpm::{self, Tpm};
use anyhow::{Context, Result, ensure};
use os_config_model::json::dotted;
use os_config_model::keys::KEYS;
use os_config_model::{edit, model};
use os_sys::cmd::Cmd;
use osctl::image::{self, Change};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// The card that the example of `os.network.ethernet` is for.
const FIXED_MAC: &str = "52:54:00:05:e2:e0";

/// Where the TPM keeps its state.
pub(super) const TPM: &str = "tpm";

/// Keys whose documented example cannot work by itself, and why.
const NOT_AS_DOCUMENTED: &[(&str, &str)] = &[
    ("/os/sshKeys", "the test's own key has to be among them"),
    ("/os/openvpn/clients", "needs a server and certificates"),
    ("/os/openvpn/server", "needs certificates"),
    ("/os/kernel/arguments", "has a scenario of its own"),
    ("/os/wipe", "has a scenario of its own"),
];

/// The documented examples together, as one configuration.
fn examples() -> Result<Value> {
    let mut root = json!({});
    for key in KEYS.iter().filter(|k| !NOT_AS_DOCUMENTED.iter().any(|(p, _)| *p == k.pointer)) {
        edit::merge(&mut root, &model::only(key.pointer, serde_json::from_str(key.example)?));
    }
    Ok(root)
}

/// Certificates of one authority for a server and a client of OpenVPN, each with its key, as configurations hold them.
fn openvpn(dir: &Path) -> Result<(String, String)> {
    let at = |name: &str| dir.join(format!("vpn-{name}"));
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let make = |name: &str| Cmd::new("openssl").args(new).arg("-subj").arg(format!("/CN={name}"));
    make("ca").arg("-keyout").arg(at("ca.key")).arg("-out").arg(at("ca.pem")).run()?;
    let mut parts = Vec::new();
    for name in ["server", "client"] {
        let (key, cert) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        make(name)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .arg("-CA")
            .arg(at("ca.pem"))
            .arg("-CAkey")
            .arg(at("ca.key"))
            .run()?;
        let read = |path: &Path| os_sys::files::read_text(path);
        let (ca, cert, key) = (read(&at("ca.pem"))?, read(&cert)?, read(&key)?);
        parts.push(format!("<ca>\n{ca}</ca>\n<cert>\n{cert}</cert>\n<key>\n{key}</key>\n"));
    }
    let common = "proto udp\nverb 3\n";
    let server =
        format!("server 10.96.0.0 255.255.255.0\ntopology subnet\ndev tun9\nport 1194\ndh none\n{common}{}", parts[0]);
    let client = format!("client\nremote 127.0.0.1 1194\ndev tun8\nnobind\n{common}{}", parts[1]);
    Ok((server, client))
}

/// Remembers which keys were checked, so that none is forgotten.
struct Keys<'a> {
    checks: &'a mut Checks,
    done: RefCell<BTreeSet<&'static str>>,
}

impl Keys<'_> {
    fn check(&mut self, keys: &[&'static str], check: impl FnOnce() -> Result<()>) {
        self.done.borrow_mut().extend(keys);
        self.checks.check(&format!("{} in force", keys.join(" ")), check);
    }
}

pub(super) fn every_key(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let mut config = examples()?;
    let (server, client) = openvpn(&lab.dir)?;
    let own = lab.artifacts.keys.ssh_public()?;
    let documented = KEYS.iter().find(|k| k.pointer == "/os/sshKeys").context("no such key")?.example;
    let documented: Vec<String> = serde_json::from_str(documented)?;
    edit::merge(
        &mut config,
        &json!({"os": {
            "sshKeys": [own, documented[0]],
            "openvpn": {"server": {"enabled": true, "config": server}, "clients": {"office": client}},
        }}),
    );
    if tpm::missing(lab.artifacts.arch).is_some() {
        edit::merge(&mut config, &json!({"os": {"encryption": {"data": "key"}}}));
    }
    let file = lab.dir.join("every-key.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    checks.check("osctl image configure writes every documented example into the image", || {
        lab.disk.fat.remove("config.json")?;
        image::configure(&lab.disk.path, &Change { config: Some(file.clone()), ..Change::default() }).map(drop)
    });
    lab.disk.fat.make_dir("dispatcher.d")?;
    lab.disk.fat.write("dispatcher.d/50-e2e", b"#!/bin/sh\r\necho \"$1 $2\" >> /run/dispatched\r\n")?;
    lab.disk.fat.make_dir("system-proxy")?;
    lab.disk.fat.write(
        "system-proxy/redsocks.conf",
        b"// redsocks { type = socks5; ip = 192.0.2.31; port = 1; }\nredsocks\n{\n type = http-connect;\n ip = 192.0.2.30;\n \
          port = 8080;\n login = \"e2e\";\n password = \"a;}#\\\"b\";\n}\n",
    )?;
    // For the container that none of all this may restart; the one that came with the image is wiped in this boot.
    for (file, content) in lab.preloaded()? {
        lab.disk.fat.write(&file, &content)?;
    }
    let stick = Disk::stick(&lab.dir, "CONFIG", 32)?;
    let _ = std::fs::remove_dir_all(lab.dir.join(TPM));
    let tpm = Tpm::start(lab.artifacts.arch, &lab.dir.join(TPM))?;
    let mut vm = lab.boot([devices(&stick), tpm.iter().flat_map(Tpm::arguments).collect()].concat())?;
    vm.wait_ssh()?;
    checks.say(&format!("login after {:.0} s", vm.started.elapsed().as_secs_f64()));
    checks.check("every unit came up", || every_unit_came_up(&vm));
    data_is_wiped(lab, &vm, checks);
    checks.check("os config status has every key, and nothing failed", || {
        let (code, text) = vm.ssh_code("os config status --json")?;
        let status: Value = serde_json::from_str(&text)?;
        let rows = status["keys"].as_array().context("no rows")?;
        for key in KEYS {
            let row = rows
                .iter()
                .find(|r| r["key"] == dotted(key.pointer))
                .with_context(|| format!("no row for {}", key.pointer))?;
            ensure!(row["outcome"] != "failed" && row["outcome"] != "pending", "{row}");
        }
        ensure!(code == 0, "exit code {code}: {text}");
        Ok(())
    });
    let mut keys = Keys { checks, done: RefCell::default() };
    machine::machine(&vm, tpm.is_some(), &mut keys);
    network::network(&vm, &mut keys);
    services::services(&vm, &mut keys);
    services::updates(&vm, &mut keys);
    commands::commands(&vm, lab, &mut keys);
    stick::stick_import(&vm, lab, &stick, &mut keys)?;
    let done = keys.done.into_inner();
    checks.check("no key was left out", || {
        // These two need a boot of their own.
        let later = ["/os/kernel/arguments", "/os/wipe"];
        let missing: Vec<&str> =
            KEYS.iter().map(|k| k.pointer).filter(|p| !done.contains(p) && !later.contains(p)).collect();
        ensure!(missing.is_empty(), "{}", missing.join(" "));
        Ok(())
    });
    // For the next scenario: what is wanted at its boot.
    checks.check("kernel arguments and a wipe wait for the next boot", || {
        vm.ssh("os config set os.kernel.arguments 'mitigations=auto os-e2e=1'; os config set os.wipe '{\"what\":\"apps\",\"request\":\"e2e-1\"}'")?;
        let status = vm.ssh_code("os config status --json")?.1;
        let status: Value = serde_json::from_str(&status)?;
        let pending: Vec<&str> = status["keys"].as_array().into_iter().flatten().filter(|r| r["outcome"] == "pending").filter_map(|r| r["key"].as_str()).collect();
        ensure!(pending == ["os.kernel.arguments", "os.wipe"], "{pending:?}");
        Ok(())
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

fn devices(stick: &Disk) -> Vec<String> {
    let text =
        format!("-netdev user,id=fixed,restrict=on -device virtio-net-pci,netdev=fixed,mac={FIXED_MAC},romfile=");
    text.split(' ').map(str::to_owned).chain(stick.stick_arguments()).collect()
}
