# SPDX-License-Identifier: MIT
# What the OS needs of a kernel. The distribution adds this class to KERNEL_CLASSES, so every kernel recipe inherits it.
#
#   OS_KERNEL_CONFIG         fragment with the options; merged where the kernel takes fragments (kernel-yocto)
#   OS_KERNEL_CONFIG_CHECK   what happens when the kernel's configuration lacks one, built in or as a module:
#                            fatal, warn, or none
#   OS_KERNEL_CONFIG_MAY_LACK   options that only some kernels know

OS_KERNEL_CONFIG ?= "os.cfg"
OS_KERNEL_CONFIG_CHECK ?= "fatal"
# Since 6.10 and 6.17 what iptables takes without nftables is a choice of its own.
OS_KERNEL_CONFIG_MAY_LACK ?= "\
    CONFIG_IP6_NF_IPTABLES_LEGACY \
    CONFIG_IP_NF_IPTABLES_LEGACY \
    CONFIG_NETFILTER_XTABLES_LEGACY \
"

# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${META_OS_LAYERDIR}/files/kernel:"
SRC_URI:append = " file://${OS_KERNEL_CONFIG}"

do_os_kernel_check() {
    missing=
    for option in $(sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=y$/\1/p' ${UNPACKDIR}/${OS_KERNEL_CONFIG}); do
        case " ${OS_KERNEL_CONFIG_MAY_LACK} " in *" $option "*) continue ;; esac
        grep -q "^$option=[ym]$" ${B}/.config || missing="$missing $option"
    done
    if [ -n "$missing" ]; then
        said="${PN} lacks what the OS needs of a kernel:$missing. Set these in the kernel's configuration; \
OS_KERNEL_CONFIG_CHECK = \"warn\" builds it all the same."
        [ "${OS_KERNEL_CONFIG_CHECK}" = fatal ] && bbfatal "$said"
        bbwarn "$said"
    fi
}
# nooelint: oelint.task.noanonpython
python () {
    if d.getVar("OS_KERNEL_CONFIG_CHECK") != "none":
        bb.build.addtask("do_os_kernel_check", "do_compile", "do_configure", d)
}
