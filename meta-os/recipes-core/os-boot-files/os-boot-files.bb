SUMMARY = "Files of the boot partition"
DESCRIPTION = "What the bootloader runs to pick a slot, the boot counters and a first config.json."
HOMEPAGE = "https://example.org/os"
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
DEPENDS = "grub-native"
DEPENDS:append = " ${@'u-boot-tools-native' if d.getVar('OS_BOOTLOADER') == 'u-boot' else ''}"
# What meta-raspberrypi's U-Boot asks for; a board of ours prefers this one.
PROVIDES += "${@'u-boot-default-script' if d.getVar('OS_BOOTLOADER') == 'u-boot' else ''}"

# The scripts are the lab's too, and lie where the files of their bootloader are.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${@''.join(d.getVar('META_OS_LAYERDIR') + '/recipes-bsp/%s/files:' % name for name in ('grub', 'rpi-tryboot', 'u-boot'))}"
SRC_URI = "\
    file://autoboot.txt \
    file://boot.cmd \
    file://config.json \
    file://config.txt \
    file://grub.cfg \
"

S = "${UNPACKDIR}"

# Set by the distribution (os-boot.inc).
OS_BOOTLOADER ?= "grub"
# Where the firmware starts the slots: lines of its config.txt.
OS_FIRMWARE_CONFIG ?= ""

PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit deploy kernel-arch

do_configure[noexec] = "1"

do_compile() {
    grub-editenv ${B}/grubenv create
    grub-editenv ${B}/grubenv set "ORDER=A B" A_OK=1 A_TRY=0 B_OK=0 B_TRY=0
    if [ "${OS_BOOTLOADER}" = u-boot ]; then
        mkimage -A ${UBOOT_ARCH} -T script -C none -n os -d ${UNPACKDIR}/boot.cmd ${B}/boot.scr
    fi
    { cat ${UNPACKDIR}/config.txt; printf '%s\n' ${OS_FIRMWARE_CONFIG}; } > ${B}/rpi-config.txt
}

do_install[noexec] = "1"

do_deploy() {
    install -m 0644 ${UNPACKDIR}/config.json ${B}/grubenv ${DEPLOYDIR}/
    case "${OS_BOOTLOADER}" in
    grub) install -m 0644 ${UNPACKDIR}/grub.cfg ${DEPLOYDIR}/ ;;
    u-boot) install -m 0644 ${B}/boot.scr ${DEPLOYDIR}/ ;;
    rpi-tryboot) install -m 0644 ${UNPACKDIR}/autoboot.txt ${B}/rpi-config.txt ${DEPLOYDIR}/ ;;
    *) bbfatal "OS_BOOTLOADER is '${OS_BOOTLOADER}'; this recipe knows grub, rpi-tryboot and u-boot" ;;
    esac
}
addtask deploy after do_compile before do_build

ALLOW_EMPTY:${PN} = "1"
