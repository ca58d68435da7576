SUMMARY = "What board the OS was built for"
DESCRIPTION = "board.conf, from the variables that the disk is made with; the root and the initramfs have the same."
HOMEPAGE = "https://example.org/os"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://board.conf"

S = "${UNPACKDIR}"

# Set by the distribution (os-boot.inc).
OS_BOOTLOADER ?= "grub"

PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${nonarch_libdir}/os
    sed "s|@OS_BOOTLOADER@|${OS_BOOTLOADER}|" ${UNPACKDIR}/board.conf > ${D}${nonarch_libdir}/os/board.conf
}

FILES:${PN} += "${nonarch_libdir}/os"
