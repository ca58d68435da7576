# Only our own distribution takes our slots: adding the layer changes nothing for others.
require ${@'rauc-conf-os.inc' if d.getVar('DISTRO') == 'os' else ''}
