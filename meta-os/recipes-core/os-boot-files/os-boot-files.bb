SUMMARY = "Files of the boot partition of EFI machines"
DESCRIPTION = "grub.cfg, the boot counters and a first config.json."
HOMEPAGE = "https://example.org/os"
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
DEPENDS = "grub-native"

# grub.cfg is the lab's too and lies where GRUB's files are.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${META_OS_LAYERDIR}/recipes-bsp/grub/files:"
SRC_URI = "\
    file://config.json \
    file://grub.cfg \
"

S = "${UNPACKDIR}"

PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit deploy

do_configure[noexec] = "1"

do_compile() {
    grub-editenv ${B}/grubenv create
    grub-editenv ${B}/grubenv set "ORDER=A B" A_OK=1 A_TRY=0 B_OK=0 B_TRY=0
}

do_install[noexec] = "1"

do_deploy() {
    install -m 0644 ${UNPACKDIR}/config.json ${UNPACKDIR}/grub.cfg ${B}/grubenv ${DEPLOYDIR}/
}
addtask deploy after do_compile before do_build

ALLOW_EMPTY:${PN} = "1"
