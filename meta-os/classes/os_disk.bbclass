# SPDX-License-Identifier: MIT
# Makes the slot images and the disk of an image recipe.
#
#   OS_ROOT_FSTYPE    filesystem of the root slot (erofs, squashfs-lz4)
#   OS_ROOT_IMAGE     root filesystem with its dm-verity tree behind it: the root slot
#   OS_ROOT_MAX_SIZE  what it may have, beside the room of its partition (os-layout.inc)
#   OS_KERNEL_IMAGE   FAT with kernel, initramfs and slot.cfg: the kernel slot
#   OS_KERNEL_FILES   what else the kernel slot holds, such as device trees: SOURCE;PATH, SOURCE in the deploy directory
#   OS_BOOT_DEPENDS   tasks that deploy what OS_BOOT_FILES names and is not our own
#   OS_DATA_IMAGE     data partition as it is flashed
#   OS_KERNEL_ARGS, OS_CONSOLES   kernel arguments (os-boot.inc)
#   OS_WKS_FILE       kickstart file of the disk (os-layout.inc)
#   OS_PRELOAD        archives on the build machine, as docker save writes them, of apps that come with the system; NAME.json
#                     beside NAME.tar describes the container. They are there again after a factory reset.
#
# Sizes stand in conf/distro/include/os-layout.inc, the order of partitions in files/wic/.

inherit os_size

OS_ROOT_FSTYPE ?= "erofs"
OS_ROOT_MAX_SIZE ?= ""
OS_ROOT_IMAGE = "${IMGDEPLOYDIR}/os-root-${MACHINE}.verity"
OS_KERNEL_IMAGE = "${IMGDEPLOYDIR}/os-kernel-${MACHINE}.vfat"
OS_DATA_IMAGE = "${IMGDEPLOYDIR}/os-data-${MACHINE}.ext4"

IMAGE_FSTYPES = "wic.zst wic.bmap"
IMAGE_OVERHEAD_FACTOR = "1.0"
IMAGE_ROOTFS_EXTRA_SPACE = "0"

# An image has no sources, so its date would be oe-core's fallback of 2011, and mkfs.erofs lets no file be younger than that: the
# floor of the device's clock is the date of a file of the root (OS_CLOCK_FLOOR, which os.conf makes the date of the root).
SOURCE_DATE_EPOCH = "${REPRODUCIBLE_TIMESTAMP_ROOTFS}"

OS_KERNEL_FILES ?= ""
# Set by the distribution (os-layout.inc, and what belongs to the bootloader).
OS_BOOT_DEPENDS ?= ""

OS_PRELOAD ?= ""
do_rootfs[file-checksums] += "${@' '.join('%s:True %s.json:False' % (f, f.removesuffix('.tar')) for f in (d.getVar('OS_PRELOAD') or '').split())}"

# A machine may name a kickstart file of its own for WKS_FILE; here the disk is the distribution's.
WKS_FILE = "${OS_WKS_FILE}"
# scarthgap searches a directory that wrynose refuses to see; ours is neither.
# nooelint: oelint.vars.inconspaces
WKS_SEARCH_PATH:append = ":${META_OS_LAYERDIR}/files/wic"
# wic must not edit the root: slot and bundle are the same bytes.
WIC_CREATE_EXTRA_ARGS:append = " --no-fstab-update"
IMAGE_BOOT_FILES = "${OS_BOOT_FILES}"

IMAGE_TYPES:append = " os_slot"
IMAGE_TYPEDEP:os_slot = "${OS_ROOT_FSTYPE}"
IMAGE_TYPEDEP:wic = "os_slot"

# The programs that os-slotmake calls, and itself.
do_image_os_slot[depends] += "\
    cryptsetup-native:do_populate_sysroot \
    dosfstools-native:do_populate_sysroot \
    e2fsprogs-native:do_populate_sysroot \
    mtools-native:do_populate_sysroot \
    os-boot-files:do_deploy \
    os-initramfs:do_image_complete \
    os-slotmake-native:do_populate_sysroot \
    virtual/kernel:do_deploy \
"
# Before the slot: a root that is too large needs the list most.
do_image_os_slot[prefuncs] += "os_size_report"
do_image_wic[depends] += "${OS_BOOT_DEPENDS} os-boot-files:do_deploy"

IMAGE_CMD:os_slot() {
    cp --dereference ${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.${OS_ROOT_FSTYPE} ${OS_ROOT_IMAGE}
    rm -rf ${WORKDIR}/os-kernel
    install -d ${WORKDIR}/os-kernel
    # Quoted: a semicolon would end the command.
    for file in $(echo '${OS_KERNEL_FILES}'); do
        install -D -m 0644 "${DEPLOY_DIR_IMAGE}/${file%%;*}" "${WORKDIR}/os-kernel/${file#*;}"
    done
    os-slotmake slot \
        --root ${OS_ROOT_IMAGE} --root-size ${OS_ROOT_SIZE} --root-max "${OS_ROOT_MAX_SIZE}" \
        --kernel ${DEPLOY_DIR_IMAGE}/${KERNEL_IMAGETYPE} \
        --initramfs ${DEPLOY_DIR_IMAGE}/os-initramfs-${MACHINE}.cpio.lz4 --more ${WORKDIR}/os-kernel \
        --arguments "${OS_CONSOLES} ${OS_KERNEL_ARGS}" --config ${WORKDIR}/slot.cfg \
        --image ${OS_KERNEL_IMAGE} --size ${OS_KERNEL_SIZE} --epoch "$SOURCE_DATE_EPOCH" \
        || bbfatal "There is no slot; the log says why. Sizes of packages, the largest first: ${OS_SIZE_REPORT}"

    install -d ${WORKDIR}/os-data/preload
    os-slotmake data --tree ${WORKDIR}/os-data --image ${OS_DATA_IMAGE} --size ${OS_DATA_SIZE} \
        --options "${OS_DATA_MKFS_OPTIONS}"
}

# Files that other packages own and the OS decides about (os-base.bb).
os_disk_overrides() {
    cp -R --no-dereference ${IMAGE_ROOTFS}${datadir}/os/overrides/. ${IMAGE_ROOTFS}${sysconfdir}/
    rm -rf ${IMAGE_ROOTFS}${datadir}/os/overrides
    # As tools/host/lab/src/image/compose.rs.
    for archive in ${OS_PRELOAD}; do
        install -d ${IMAGE_ROOTFS}${nonarch_libdir}/os/preload
        install -m 0644 $archive ${IMAGE_ROOTFS}${nonarch_libdir}/os/preload/
        [ ! -e ${archive%.tar}.json ] || install -m 0644 ${archive%.tar}.json ${IMAGE_ROOTFS}${nonarch_libdir}/os/preload/
    done
    # Package scripts enable what they like, and presets that are applied afterwards only add to it: presets decide alone.
    find ${IMAGE_ROOTFS}${sysconfdir}/systemd/system -type d \( -name '*.wants' -o -name '*.requires' \) -exec rm -rf {} +
    # systemd-update-done(8): nothing is to be brought up to date. /etc and /var begin anew at every boot; without these
    # two, every boot would make the linker's cache, the users and the journal's catalog again.
    touch ${IMAGE_ROOTFS}${sysconfdir}/.updated ${IMAGE_ROOTFS}${localstatedir}/.updated
}
ROOTFS_POSTPROCESS_COMMAND:append = " os_disk_overrides"
