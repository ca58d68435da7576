# Only our own distribution configures it: adding the layer changes nothing for others.
require ${@'u-boot-os.inc' if d.getVar('DISTRO') == 'os' else ''}
