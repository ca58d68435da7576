SUMMARY = "The OS: a read-only, verified host for containers"
DESCRIPTION = "Disk image with two slots, state and data; see docs/internals.md."
HOMEPAGE = "https://example.org/os"
SECTION = "base"
LICENSE = "MIT"

inherit core-image os_disk os_ova

OS_VARIANT ?= "production"
IMAGE_INSTALL = "\
    packagegroup-core-boot \
    packagegroup-os \
    ${@'packagegroup-os-development' if d.getVar('OS_VARIANT') == 'development' else ''} \
    ${CORE_IMAGE_EXTRA_INSTALL} \
"
IMAGE_FEATURES = "read-only-rootfs"
IMAGE_LINGUAS = ""
