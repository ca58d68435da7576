SUMMARY = "Tools of the OS on the device"
DESCRIPTION = "One multi-call binary: init of the initramfs, configuration, host name, updates, apps, and the os command."
HOMEPAGE = "https://example.org/os"
SECTION = "base"

require os-tools-source.inc

inherit systemd

CARGO_BUILD_FLAGS:append = " --package os-tools"

# make install is the one place that says where files go; the lab image calls it too.
do_install() {
    binary=$(find ${B} -path "*/release/os-tools" -type f | head -n 1)
    oe_runmake -C ${S} install DESTDIR=${D} BINDIR_FROM=$(dirname $binary) \
        prefix=${prefix} bindir=${bindir} unitdir=${systemd_system_unitdir} \
        libdir_os=${nonarch_libdir}/os udevdir=${nonarch_base_libdir}/udev \
        nmdir=${nonarch_libdir}/NetworkManager
    ln -s ${nonarch_libdir}/os/os-tools ${D}/init
}

PACKAGES =+ "${PN}-init"

SYSTEMD_SERVICE:${PN} = "\
    mnt-data-swapfile.swap \
    os-boot-log.path \
    os-boot-log.service \
    os-clock.service \
    os-commit.service \
    os-config.path \
    os-config.service \
    os-country.service \
    os-deadline.service \
    os-deadline.timer \
    os-first-boot.service \
    os-health.service \
    os-hostname.service \
    os-hostname.timer \
    os-import@.service \
    os-kexec@.service \
    os-mqtt.service \
    os-network.path \
    os-network.service \
    os-preload.service \
    os-rescue.service \
    os-rescue.timer \
    os-retry.service \
    os-retry.timer \
    os-splash.service \
    os-update-bus.service \
    os-update-stick@.service \
    os-update.service \
    os-update.timer \
"

FILES:${PN} += "\
    ${datadir}/dbus-1 \
    ${nonarch_base_libdir}/udev \
    ${nonarch_libdir}/NetworkManager \
    ${nonarch_libdir}/os \
    ${nonarch_libdir}/systemd \
"
# /init for the initramfs; the binary it points to is the same one.
FILES:${PN}-init += "/init"

RDEPENDS:${PN} += "curl iproute2"
RDEPENDS:${PN}-init += "${PN}"
