#!/bin/sh
# install.sh [--root DIR] [--tmpfs]: puts the units where systemd looks, and enables them for the next boot.
#
# The programs they start are expected in /opt/janitor/bin; see README.md. --root works on a tree that is not running
# (an image, a mounted disk). --tmpfs installs and enables the mounts that keep leases in memory as well.
set -eu
units=janitor-boot.service # what is installed and enabled, in the order of a boot
mounts='var-lib-cni-networks.mount var-lib-cni-results.mount'

here=$(cd "$(dirname "$0")" && pwd)
root='' with=$units
while [ $# -gt 0 ]; do
    case $1 in
    --root) root=${2:?--root takes a directory} && shift ;;
    --tmpfs) with="$mounts $with" ;;
    *) echo "install.sh: $1 is not known; it takes --root DIR and --tmpfs" >&2 && exit 64 ;;
    esac
    shift
done
root=${root%/}
if [ ! -x "$root/opt/janitor/bin/janitor-boot" ] && [ ! -L "$root/opt/janitor/bin/janitor-boot" ]; then
    echo "install.sh: $root/opt/janitor/bin/janitor-boot is not there: install janitor first (README.md)" >&2
    exit 2
fi
mkdir -p "$root/etc/systemd/system"
for unit in $with; do
    if [ -L "$root/etc/systemd/system/$unit" ]; then # written through, a mask would take /dev/null with it
        echo "install.sh: $root/etc/systemd/system/$unit is a link (is it masked?): remove it first" >&2
        exit 2
    fi
done
for unit in $with; do
    cp "$here/$unit" "$root/etc/systemd/system/$unit"
    chmod 644 "$root/etc/systemd/system/$unit"
done
# shellcheck disable=SC2086 # a list
systemctl ${root:+--root="$root"} enable $with
[ -n "$root" ] || systemctl daemon-reload
