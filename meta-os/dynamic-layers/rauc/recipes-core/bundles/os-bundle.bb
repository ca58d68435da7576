SUMMARY = "Update bundle of the OS"
DESCRIPTION = "Kernel and root slot of os-image, signed with RAUC_KEY_FILE and RAUC_CERT_FILE; see docs/update.md."
HOMEPAGE = "https://example.org/os"
SECTION = "base"
LICENSE = "MIT"

SRC_URI = ""

inherit bundle

RAUC_BUNDLE_COMPATIBLE = "${OS_COMPATIBLE}"
RAUC_BUNDLE_VERSION = "${OS_VERSION}"
RAUC_BUNDLE_DESCRIPTION = "${DISTRO_NAME} ${OS_VERSION} for ${MACHINE}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "kernel rootfs"

BUNDLE_NAME = "${PN}-${MACHINE}-${OS_VERSION}"

# What os_disk.bbclass makes: the bytes that are flashed are the bytes that are updated to.
RAUC_SLOT_kernel = "os-image"
RAUC_SLOT_kernel[type] = "file"
RAUC_SLOT_kernel[file] = "os-kernel-${MACHINE}.vfat"
RAUC_SLOT_kernel[rename] = "kernel.vfat"
RAUC_SLOT_kernel[depends] = "os-image:do_image_complete"
RAUC_SLOT_rootfs = "os-image"
RAUC_SLOT_rootfs[type] = "file"
RAUC_SLOT_rootfs[file] = "os-root-${MACHINE}.verity"
RAUC_SLOT_rootfs[rename] = "rootfs.img"
RAUC_SLOT_rootfs[depends] = "os-image:do_image_complete"
# Devices take what their slots have already from there, and read the rest by the block: so blocks are small.
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"
BUNDLE_ARGS += "--mksquashfs-args='-b 16k'"
