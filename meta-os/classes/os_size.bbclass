# SPDX-License-Identifier: MIT
# Says beside an image what makes it large: IMAGE_LINK_NAME.sizes.txt lists its packages, the largest first. It reads what every
# package manager leaves the same: the manifest of the image, and the data that the build keeps of each package.
#
#   OS_SIZE_REPORT    where the list is written
#
# A class that knows when the image is complete enough calls os_size_report.

OS_SIZE_REPORT = "${IMGDEPLOYDIR}/${IMAGE_NAME}.sizes.txt"

def os_size_packages(manifest, pkgdata_dir):
    """Bytes, name and recipe of each package in a manifest, the largest first; bytes are None where the build knows none."""
    packages = []
    with open(manifest, encoding="utf-8") as lines:
        names = [line.split()[0] for line in lines if line.strip()]
    for name in names:
        known = {}
        path = os.path.join(pkgdata_dir, "runtime-reverse", name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                known = dict(line.rstrip("\n").split(": ", 1) for line in lines if ": " in line)
        # The key has the package's name in the recipe, which debian.bbclass may have changed: PKGSIZE:glibc of libc6.
        size = next((int(value) for key, value in known.items() if key.startswith("PKGSIZE:")), None)
        packages.append((size, name, known.get("PN", "?")))
    return sorted(packages, key=lambda package: (-(package[0] or 0), package[1]))

def os_size_text(packages, tree, image, image_bytes):
    """The list, with its totals."""
    total = sum(size or 0 for size, _, _ in packages)
    lines = ["%9s  %5s  %s" % ("KiB", "", "package (recipe)")]
    for size, name, recipe in packages:
        share = "%4.1f%%" % (100 * size / total) if size and total else ""
        lines.append("%9s  %5s  %s (%s)" % ("?" if size is None else -(-size // 1024), share, name, recipe))
    lines.append("%9d  %5s  %d packages" % (-(-total // 1024), "", len(packages)))
    lines.append("%9d  %5s  the root in blocks of 4 KiB, with what the build made beside packages" % (-(-tree // 1024), ""))
    lines.append("%9d  %5s  %s: the same, compressed" % (-(-image_bytes // 1024), "", image))
    return "\n".join(lines) + "\n"

python os_size_report() {
    import oe.utils
    packages = os_size_packages(d.getVar("IMAGE_MANIFEST"), d.getVar("PKGDATA_DIR"))
    image = "%s.%s" % (d.getVar("IMAGE_LINK_NAME"), d.getVar("OS_ROOT_FSTYPE"))
    image_bytes = os.path.getsize(os.path.join(d.getVar("IMGDEPLOYDIR"), image))
    tree = oe.utils.directory_size(d.getVar("IMAGE_ROOTFS"))
    report = d.getVar("OS_SIZE_REPORT")
    with open(report, "w", encoding="utf-8") as file:
        file.write(os_size_text(packages, tree, image, image_bytes))
    link = os.path.join(d.getVar("IMGDEPLOYDIR"), d.getVar("IMAGE_LINK_NAME") + ".sizes.txt")
    if link != report:
        bb.utils.remove(link)
        os.symlink(os.path.basename(report), link)
}
