#!/bin/bash
# A dracut module that runs the boot stage on the mounted root, before the root is switched. Copy this directory to
# /usr/lib/dracut/modules.d/, copy janitor-boot.sh into it, and build the initramfs with --add janitor.

check() {
    return 255 # only if requested, with --add or add_dracutmodules
}

depends() {
    echo base
}

install() {
    inst_multiple awk base64 cat chmod cut date dd find grep head id ln ls mkdir mv od readlink rm rmdir sed sha256sum sh sleep \
        sort stat sync tail timeout tr wc xargs
    inst_multiple -o flock
    inst_simple "${moddir:?}/janitor-boot.sh" /usr/bin/janitor-boot.sh
    chmod 755 "${initdir:?}/usr/bin/janitor-boot.sh"
    # At pre-pivot the mounts that /etc/fstab requests are done, and no service of the real system runs yet.
    inst_hook pre-pivot 90 "$moddir/janitor-pre-pivot.sh"
}
