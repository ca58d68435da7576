SUMMARY = "Makes the images of a slot and of the data partition"
DESCRIPTION = "The program that os_disk.bbclass calls; the lab uses the same crate."
HOMEPAGE = "https://example.org/os"
SECTION = "devel"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Set by the distribution; a build of the layer alone has none.
OS_VERSION ?= "0"
PV = "${OS_VERSION}"

inherit os_cargo
inherit_defer native

require os-slotmake-crates.inc

# Its Cargo.lock is that of the crates below, which are all that is here of the workspace.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"

SRC_URI += "\
    file://LICENSE;subdir=${BP} \
    file://Cargo.lock;subdir=${BP} \
    file://Cargo.toml;subdir=${BP} \
    file://device/os-sys;subdir=${BP} \
    file://host/slotmake;subdir=${BP} \
"

S = "${UNPACKDIR}/${BP}"

CARGO_BUILD_FLAGS:append = " --package os-slotmake"

do_install() {
    binary=$(find ${B} -path "*/release/os-slotmake" -type f | head -n 1)
    install -d ${D}${bindir}
    install -m 0755 $binary ${D}${bindir}
}
