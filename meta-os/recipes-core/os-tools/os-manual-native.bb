SUMMARY = "Writes completion and manual of the os command"
DESCRIPTION = "A program for the build of os-manual, made of the definition of the command."
HOMEPAGE = "https://example.org/os"
SECTION = "devel"

require os-tools-source.inc

inherit_defer native

CARGO_BUILD_FLAGS:append = " --package os-cli --bin os-manual --features manual"
# It runs once for a build: what makes the binary of the device small would only take time.
export CARGO_PROFILE_RELEASE_LTO = "off"
export CARGO_PROFILE_RELEASE_OPT_LEVEL = "0"

do_install() {
    binary=$(find ${B} -path "*/release/os-manual" -type f | head -n 1)
    install -d ${D}${bindir}
    install -m 0755 $binary ${D}${bindir}
}
