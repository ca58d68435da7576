# SPDX-License-Identifier: MIT
# Adds the conversion "ova" to an image: a virtual appliance that VMware and VirtualBox import (IMAGE_FSTYPES += "wic.ova").
# It is for machines that start from UEFI on x86-64.
#
#   OS_VM_DISK_SIZE   size of its disk, of which only what the image has takes room; data grows to the end of it at the first boot
#   OS_VM_MEMORY      memory, in MiB
#   OS_VM_CPUS        processors

OS_VM_DISK_SIZE ?= "32G"
OS_VM_MEMORY ?= "2048"
OS_VM_CPUS ?= "2"

CONVERSIONTYPES:append = " ova"
CONVERSION_CMD:ova = "\
    python3 ${META_OS_LAYERDIR}/scripts/make-ova ${IMAGE_NAME}.${type} ${IMAGE_NAME}.${type}.ova \
    --name '${DISTRO_NAME}' --version '${DISTRO_VERSION}' --epoch ${REPRODUCIBLE_TIMESTAMP_ROOTFS} \
    --capacity ${OS_VM_DISK_SIZE} --memory ${OS_VM_MEMORY} --cpus ${OS_VM_CPUS} \
"
CONVERSION_DEPENDS_ova = "qemu-system-native"

do_image_wic[file-checksums] += "${META_OS_LAYERDIR}/scripts/make-ova:True"
