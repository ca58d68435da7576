# SPDX-License-Identifier: MIT
# Builds our Cargo workspace offline from checksummed crates, whichever Rust the release has.
#
#   OS_CARGO_CLASS   cargo      oe-core's own toolchain (wrynose)
#                    cargo_bin  meta-rust-bin's toolchain (scarthgap, whose own is too old)
#
# The distribution sets it per release; a recipe inherits this class and never one of the two.

OS_CARGO_CLASS ?= "cargo"
# Deferred, the class would come after the recipe that changes it.
# nooelint: oelint.var.inherit.inherit_defer
inherit ${OS_CARGO_CLASS}

# The local workspace, found beside the layer in the same checkout.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${META_OS_SRCTOP}/tools:${META_OS_SRCTOP}:"

# cargo_bin neither vendors nor locks by itself; the crate fetcher has put every crate below its CARGO_HOME.
OS_CARGO_OFFLINE = "${@'1' if d.getVar('OS_CARGO_CLASS') == 'cargo_bin' else '0'}"
EXTRA_CARGO_FLAGS:append = " ${@'--frozen' if d.getVar('OS_CARGO_OFFLINE') == '1' else ''}"

do_configure:append() {
    if [ "${OS_CARGO_OFFLINE}" = "1" ]; then
        install -d ${CARGO_HOME}
        printf '[source.crates-io]\nreplace-with = "bitbake"\n\n[source.bitbake]\ndirectory = "%s"\n' \
            "${CARGO_HOME}/bitbake" > ${CARGO_HOME}/config.toml
    fi
}

# oe-core's class takes the paths of this machine out of the binary by itself; that of meta-rust-bin has to be told.
EXTRA_RUSTFLAGS:append = " --remap-path-prefix=${WORKDIR}=${TARGET_DBGSRC_DIR}"

# Symbols go into the debug package; a binary that cargo stripped has none left.
export CARGO_PROFILE_RELEASE_STRIP = "false"

# The class of meta-rust-bin lets cargo reach the network; with every crate at hand nothing has to.
# nooelint: oelint.task.noanonpython
python () {
    d.delVarFlag("do_compile", "network")
}
