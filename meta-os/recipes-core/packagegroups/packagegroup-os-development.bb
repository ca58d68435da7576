SUMMARY = "What a developer looks for on a device"
DESCRIPTION = "An editor, and programs that show hardware, networks and processes; part of the development variant alone."
HOMEPAGE = "https://example.org/os"
SECTION = "base"

inherit packagegroup

# It takes layers that this one does not need otherwise; who builds the world may lack them.
EXCLUDE_FROM_WORLD = "1"

RDEPENDS:${PN} = "\
    ethtool \
    i2c-tools \
    iputils-ping \
    jq \
    libgpiod-tools \
    nano \
    pciutils \
    rsync \
    strace \
    tcpdump \
    usbutils \
"
