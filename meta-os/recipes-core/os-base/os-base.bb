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
# Set by the distribution (os-update.inc).
OS_UPDATE_CHANNEL ?= ""
OS_CHANNEL_ROOT ?= ""

inherit allarch

do_install[file-checksums] += "${@'${OS_CHANNEL_ROOT}:True' if d.getVar('OS_CHANNEL_ROOT') else ''}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    for tree in rootfs rootfs-${OS_VARIANT}; do
        [ -d ${UNPACKDIR}/$tree ] && cp -R --no-dereference --preserve=mode,links ${UNPACKDIR}/$tree/. ${D}/
    done
    chown -R root:root ${D}
    # A checkout has the modes of whoever's umask made it.
    chmod -R u=rwX,go=rX ${D}
    # Owned by avahi, base-files, netbase, systemd and tzdata; the image takes ours from os-base-overrides below.
    install -d ${D}${datadir}/os/overrides
    for file in avahi/avahi-daemon.conf fstab hosts issue issue.net machine-id nsswitch.conf timezone; do
        install -d ${D}${datadir}/os/overrides/$(dirname $file)
        mv ${D}${sysconfdir}/$file ${D}${datadir}/os/overrides/$file
    done
    # The name is the device's own; it lies there from the first boot on. Links are made here: BitBake cannot checksum one that
    # leads to nothing on the build machine. As tools/host/lab/src/image/compose.rs.
    ln -s ../mnt/state/os/hostname ${D}${datadir}/os/overrides/hostname
    ln -s ../run/os/network/resolv.conf ${D}${datadir}/os/overrides/resolv.conf
    # The channel of releases, and whom it is believed from.
    if [ -n "${OS_UPDATE_CHANNEL}" ]; then echo "${OS_UPDATE_CHANNEL}" > ${D}${sysconfdir}/os/channel; fi
    if [ -n "${OS_CHANNEL_ROOT}" ]; then install -m 0644 "${OS_CHANNEL_ROOT}" ${D}${sysconfdir}/os/channel-root.json; fi
    install -d ${D}/mnt/boot ${D}/mnt/state ${D}/mnt/data
}

FILES:${PN} += "/"

RDEPENDS:${PN} += "os-tools"
