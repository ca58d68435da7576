# SPDX-License-Identifier: MIT
# What the OS needs of a kernel. The distribution adds this class to KERNEL_CLASSES, so every kernel recipe inherits it.
#
#   OS_KERNEL_CONFIG         fragments with the options, in files/kernel/ of any layer; merged where the kernel takes fragments
#                            (kernel-yocto). os.cfg says what their comments and marks mean
#   OS_KERNEL_CONFIG_CHECK   what happens when the kernel's configuration lacks an option: fatal, warn, or none
#   OS_KERNEL_CONFIG_MAY_LACK   options that this kernel may lack, besides those that a fragment marks so

OS_KERNEL_CONFIG ?= "os.cfg"
OS_KERNEL_CONFIG_CHECK ?= "fatal"
OS_KERNEL_CONFIG_MAY_LACK ?= ""

# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${META_OS_LAYERDIR}/files/kernel:${@''.join(layer + '/files/kernel:' for layer in d.getVar('BBPATH').split(':') if layer)}"
SRC_URI:append = " ${@' '.join('file://' + name for name in d.getVar('OS_KERNEL_CONFIG').split())}"

def os_kernel_options(text):
    """Names and values that a fragment or a configuration sets; an option that is off is 'n'."""
    import re
    options = {}
    for line in text.splitlines():
        found = re.match(r"(CONFIG_\w+)=(.+)$", line) or re.match(r"# (CONFIG_\w+) is not set()$", line)
        if found:
            options[found[1]] = found[2] or "n"
    return options

def os_kernel_lacks(fragment, config, may_lack):
    """What a configuration lacks of a fragment: a line for each group. tools/host/osctl/src/kconfig.rs reads the same form."""
    lines = []
    for paragraph in fragment.split("\n\n"):
        wanted = os_kernel_options(paragraph)
        comment = " ".join(line[1:].strip() for line in paragraph.splitlines()
                           if line.startswith("#") and not os_kernel_options(line) and "SPDX" not in line)
        if comment.endswith("[may lack]"):
            continue
        def has(name, value):
            found = config.get(name, "n")
            return found == value or (value == "y" and found == "m" and not comment.endswith("[built in]"))
        lacks = [name + "=" + value for name, value in wanted.items() if name not in may_lack and not has(name, value)]
        if comment.endswith("[one of]") and len(lacks) < len(wanted):
            continue
        if lacks:
            lines.append(comment + "\n    " + " ".join(lacks))
    return lines

python do_os_kernel_check() {
    def read(directory, name):
        with open(os.path.join(d.getVar(directory), name), encoding="utf-8") as file:
            return file.read()
    config = os_kernel_options(read("B", ".config"))
    lacks = []
    for name in d.getVar("OS_KERNEL_CONFIG").split():
        lacks += os_kernel_lacks(read("UNPACKDIR", name), config, d.getVar("OS_KERNEL_CONFIG_MAY_LACK").split())
    if lacks:
        said = ("%s lacks what the OS needs of a kernel; what does not work without it:\n%s\nSet these in the kernel's "
                "configuration; OS_KERNEL_CONFIG_CHECK = \"warn\" builds it all the same."
                % (d.getVar("PN"), "\n".join(lacks)))
        if d.getVar("OS_KERNEL_CONFIG_CHECK") == "fatal":
            bb.fatal(said)
        bb.warn(said)
}
# nooelint: oelint.task.noanonpython
python () {
    if d.getVar("OS_KERNEL_CONFIG_CHECK") != "none":
        bb.build.addtask("do_os_kernel_check", "do_compile", "do_configure", d)
}
