SUMMARY = "Host configuration of the OS"
DESCRIPTION = "One tree of files that looks like the device, and a second one per variant."
HOMEPAGE = "https://example.org/os"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://rootfs \
    file://rootfs-development \
"

S = "${UNPACKDIR}"

OS_VARIANT ?= "production"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    for tree in rootfs rootfs-${OS_VARIANT}; do
        [ -d ${UNPACKDIR}/$tree ] && cp -R --no-dereference --preserve=mode,links ${UNPACKDIR}/$tree/. ${D}/
    done
    chown -R root:root ${D}
    # Owned by base-files, systemd and netbase; the image takes ours from os-base-overrides below.
    install -d ${D}${datadir}/os/overrides
    for file in fstab hostname hosts issue issue.net machine-id nsswitch.conf resolv.conf; do
        mv ${D}${sysconfdir}/$file ${D}${datadir}/os/overrides/
    done
    install -d ${D}/mnt/boot ${D}/mnt/state ${D}/mnt/data
}

FILES:${PN} += "/"

RDEPENDS:${PN} += "os-tools"
