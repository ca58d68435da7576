SUMMARY = "Initramfs of the OS: os-init and what it calls"
DESCRIPTION = "Finds the disk it was booted from, verifies the root, checks and mounts state and data."
HOMEPAGE = "https://example.org/os"
SECTION = "base"
LICENSE = "MIT"

inherit core-image

PACKAGE_INSTALL = "\
    base-passwd \
    cryptsetup \
    dosfstools \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    e2fsprogs-resize2fs \
    e2fsprogs-tune2fs \
    kmod \
    os-board \
    os-tools-init \
    util-linux-blkid \
    util-linux-mkswap \
    util-linux-partx \
    util-linux-swapon \
    util-linux-unshare \
"
# A shell for os.rescue, where a device is open to whoever stands before it.
OS_VARIANT ?= "production"
PACKAGE_INSTALL += "${@'' if d.getVar('OS_VARIANT') == 'production' else '${VIRTUAL-RUNTIME_base-utils}'}"
# Drivers of the disk: what the machine names, and kernel-module-* packages for what its kernel has not built in.
OS_INITRAMFS_MODULES ?= ""
PACKAGE_INSTALL += "${MACHINE_ESSENTIAL_EXTRA_RDEPENDS} ${OS_INITRAMFS_MODULES}"

IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_FSTYPES = "cpio.lz4"
IMAGE_NAME_SUFFIX ?= ""
IMAGE_ROOTFS_SIZE = "8192"
IMAGE_ROOTFS_EXTRA_SPACE = "0"
# The kernel lies beside the initramfs, not in it.
PACKAGE_EXCLUDE = "kernel-image-*"
