SUMMARY = "What the OS is made of"
DESCRIPTION = "Everything os-image installs. A vendor adds with CORE_IMAGE_EXTRA_INSTALL and takes away with RDEPENDS:packagegroup-os:remove."
HOMEPAGE = "https://example.org/os"
SECTION = "base"

PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup

# It takes layers that this one does not need otherwise; who builds the world may lack them.
EXCLUDE_FROM_WORLD = "1"

OS_APPARMOR ?= ""
RDEPENDS:${PN} = "\
    ${OS_APPARMOR} \
    avahi-daemon \
    ca-certificates \
    cryptsetup \
    curl \
    dbus \
    dnsmasq \
    docker-moby \
    docker-moby-cli \
    dosfstools \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    e2fsprogs-resize2fs \
    e2fsprogs-tune2fs \
    iproute2 \
    iptables \
    iw \
    kbd-keymaps \
    kernel-modules \
    kexec \
    kmod \
    less \
    libnss-mdns \
    modemmanager \
    mosquitto \
    networkmanager \
    networkmanager-nmcli \
    openssh-keygen \
    openssh-sshd \
    openssl-bin \
    openvpn \
    os-base \
    os-board \
    os-manual-bash-completion \
    os-tools \
    polkit \
    rauc \
    systemd \
    tzdata \
    util-linux \
    virtual-containerd \
    wireless-regdb-static \
    wpa-supplicant \
    zstd \
"

# What the machine asks for beside it, such as firmware.
RDEPENDS:${PN}:append = " ${MACHINE_EXTRA_RDEPENDS}"
RRECOMMENDS:${PN} = "${MACHINE_EXTRA_RRECOMMENDS}"
