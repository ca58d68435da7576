SUMMARY = "Completion and manual of the os command"
DESCRIPTION = "Completion for bash, which images carry, and manual pages, which they do not."
HOMEPAGE = "https://example.org/os"
SECTION = "doc"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
DEPENDS = "os-manual-native"

# Set by the distribution; a build of the layer alone has none.
OS_VERSION ?= "0"
PV = "${OS_VERSION}"

# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${META_OS_SRCTOP}/tools:${META_OS_SRCTOP}:"

SRC_URI = "\
    file://LICENSE \
    file://Makefile \
"

S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"

do_compile() {
    rm -rf ${B}/manual
    os-manual ${B}/manual
}

# make install-… are the one place that says where files go; the lab image calls it too.
do_install() {
    oe_runmake -C ${S} install-completion install-manual DESTDIR=${D} MANUAL_FROM=${B}/manual \
        prefix=${prefix} mandir=${mandir} completiondir=${datadir}/bash-completion/completions
}

PACKAGES =+ "${PN}-bash-completion"
FILES:${PN}-bash-completion += "${datadir}/bash-completion"
