//! The data partition as it is flashed: the demo container's image, to be used once, and nothing else.

use crate::arch::Arch;
use crate::image::{Options, as_root, with_list};
use crate::repo::{self, Repo};
use crate::step::{Inputs, Output, Steps};
use crate::tools_tree;
use anyhow::Result;
use os_layout::vars::Vars;
use os_sys::cmd::Cmd;
use os_sys::hex;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Name and tag of the demo image.
const DEMO: &str = "hello:1";
/// What it runs. The first process of a container gets no signal that it did not ask for, and httpd asks for none: a stop
/// would wait until the engine kills it.
const DEMO_COMMAND: &str = "trap exit TERM; /bin/busybox httpd -f -p 8080 -h /www & wait";

/// Builds the data partition image and returns its path.
///
/// # Errors
/// When an archive is missing or the images do not fit.
pub fn build(repo: &Repo, vars: &Vars, options: &Options, base: &Output, steps: &Steps) -> Result<Output> {
    let size = repo::room(vars, "OS_DATA_SIZE")?;
    let mkfs = repo::need(vars, "OS_DATA_MKFS_OPTIONS")?;
    let page = repo.data("hello.html");
    let inputs =
        with_list(Inputs::new().text(&size.bytes.to_string()).text(&mkfs).text(DEMO_COMMAND), repo, "hello.html")?;
    let inputs = inputs.text(&base.identity).text(&tools_tree::identity()?);
    let name = repo::need(vars, "OS_DATA_IMAGE")?;
    let out = repo.lab().join(&options.variant).join("data");
    let identity = steps.run("data partition", inputs, &out, |dir| {
        let tree = dir.join("tree");
        let preload = tree.join("preload");
        fs::create_dir_all(&preload)?;
        demo(&base.path, &page, repo.arch, &preload)?;
        os_slotmake::data::image(as_root("mke2fs"), &tree, &dir.join(&name), &size, &mkfs)?;
        Ok(fs::remove_dir_all(&tree)?)
    })?;
    Ok(Output { path: out.join(name), identity })
}

/// A container image of one static program and one page, as `docker save` writes it (OCI layout with manifest.json).
fn demo(base: &Path, page: &Path, arch: Arch, preload: &Path) -> Result<()> {
    let work = preload.join("work");
    fs::create_dir_all(&work)?;
    Cmd::new("tar").arg("-xf").arg(base).arg("-C").arg(&work).arg("./usr/bin/busybox").run()?;
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", &fs::read(work.join("usr/bin/busybox"))?, 0o755)?;
    add(&mut layer, "www/index.html", &fs::read(page)?, 0o644)?;
    let layer = layer.into_inner()?;
    fs::remove_dir_all(&work)?;
    let layer_digest = hex(&Sha256::digest(&layer));
    let (architecture, variant) = arch.container();
    let mut config = serde_json::json!({
        "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": { "Cmd": ["/bin/busybox", "sh", "-c", DEMO_COMMAND], "ExposedPorts": { "8080/tcp": {} }, "User": "65534:65534" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    });
    if let (Some(variant), Some(fields)) = (variant, config.as_object_mut()) {
        fields.insert("variant".to_owned(), variant.into());
    }
    let config = serde_json::to_vec(&config)?;
    let config_digest = hex(&Sha256::digest(&config));
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config_digest}"), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{layer_digest}"), "size": layer.len() }],
    }))?;
    let manifest_digest = hex(&Sha256::digest(&manifest));
    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{manifest_digest}"),
            "size": manifest.len(), "annotations": { "org.opencontainers.image.ref.name": "1", "io.containerd.image.name": format!("docker.io/library/{DEMO}") } }],
    }))?;
    // What engines before OCI archives read.
    let docker = serde_json::to_vec(&serde_json::json!([{
        "Config": format!("blobs/sha256/{config_digest}"), "RepoTags": [DEMO], "Layers": [format!("blobs/sha256/{layer_digest}")],
    }]))?;
    let mut archive = tar::Builder::new(File::create(preload.join("hello.tar"))?);
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    add(&mut archive, "index.json", &index, 0o644)?;
    add(&mut archive, "manifest.json", &docker, 0o644)?;
    for (digest, blob) in [(&layer_digest, &layer), (&config_digest, &config), (&manifest_digest, &manifest)] {
        add(&mut archive, &format!("blobs/sha256/{digest}"), blob, 0o644)?;
    }
    archive.into_inner()?.flush()?;
    let spec = serde_json::json!({ "name": "hello", "image": DEMO, "ports": { "80": 8080 } });
    fs::write(preload.join("hello.json"), serde_json::to_vec_pretty(&spec)?)?;
    Ok(())
}

fn add<W: Write>(archive: &mut tar::Builder<W>, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, path, content)?;
    Ok(())
}
