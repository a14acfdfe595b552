#!/bin/bash
# A dracut module that runs the boot stage against the mounted root, before it is switched to. Copy this directory to
# /usr/lib/dracut/modules.d/ and janitor-boot.sh into it, and build the initramfs with --add janitor.

check() {
    return 255 # only where it is asked for
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
    # Everything that /etc/fstab wants for the root is mounted by now; nothing of the real system has been started.
    inst_hook pre-pivot 90 "$moddir/janitor-pre-pivot.sh"
}
