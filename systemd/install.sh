#!/bin/sh
# install.sh [--root DIR] [--tmpfs | --remove]: installs janitor's systemd units and enables them for the next boot.
#
# The units start programs in /opt/janitor/bin; see README.md. janitor.service is installed only if /opt/janitor/bin/janitor
# exists.
#   --root DIR  Work on a tree that is not running (an image, a mounted disk).
#   --tmpfs     Also install and enable the mounts that keep leases in memory.
#   --remove    Remove all units, but not the programs. Leaves a mark that keeps cloud-init's bootcmd from running the boot
#               stage.
set -eu
mounts='var-lib-cni-networks.mount var-lib-cni-results.mount' # in boot order
units='janitor-boot.service janitor.service'

here=$(cd "$(dirname "$0")" && pwd)
root='' tmpfs='' remove=''
while [ $# -gt 0 ]; do
    case $1 in
    --root) root=${2:?--root takes a directory} && shift ;;
    --tmpfs) tmpfs=1 ;;
    --remove) remove=1 ;;
    -h | --help) sed -n '1d;s/^# \{0,1\}//p' "$0" | sed '/^shellcheck/d' && exit 0 ;;
    *) echo "install.sh: unknown option $1; the options are --root DIR, --tmpfs and --remove" >&2 && exit 64 ;;
    esac
    shift
done
root=${root%/}
place=$root/etc/systemd/system
removed=$root/etc/janitor/boot-stage-removed

if [ -n "$remove" ]; then
    for unit in janitor.service janitor-boot.service $mounts; do
        if [ ! -f "$place/$unit" ] || [ -L "$place/$unit" ]; then continue; fi
        systemctl ${root:+--root="$root"} disable "$unit"
        # A mount stays until the next boot, because it holds the leases of running pods.
        [ -n "$root" ] || [ "$unit" != janitor.service ] || systemctl stop "$unit"
        rm "$place/$unit"
    done
    for unit in $units; do # systemctl leaves the link of a masked unit
        if [ -L "$place/$unit" ] || [ ! -e "$place/$unit" ]; then rm -f "$place/multi-user.target.wants/$unit"; fi
        [ ! -d "$place/$unit.d" ] || echo "install.sh: $place/$unit.d is yours, and has been left" >&2
    done
    mkdir -p "${removed%/*}"
    echo 'install.sh --remove was run here: the bootcmd of cloud-init must not run the boot stage of janitor' >"$removed"
    echo "install.sh: $removed stops cloud-init's bootcmd from running the boot stage; delete it with /opt/janitor" >&2
    [ -n "$root" ] || systemctl daemon-reload
    exit 0
fi

with='' enable=''
for unit in ${tmpfs:+$mounts} $units; do
    program=$root/opt/janitor/bin/${unit%.service}
    case $unit in
    *.mount) ;;
    *) if [ ! -x "$program" ] && [ ! -L "$program" ]; then
        [ "$unit" = janitor.service ] && continue # only the boot stage, for example without Python
        echo "install.sh: $program does not exist: install janitor first (systemd/README.md)" >&2
        exit 2
    fi ;;
    esac
    if [ -L "$place/$unit" ]; then # writing through a mask would overwrite /dev/null
        echo "install.sh: $place/$unit is a link (is it masked?): remove it first" >&2
        exit 2
    fi
    with="$with $unit"
    if [ "$(systemctl ${root:+--root="$root"} is-enabled "$unit" 2>/dev/null)" = disabled ]; then
        echo "install.sh: $unit is disabled and stays disabled; to enable it: systemctl enable $unit" >&2
    else
        enable="$enable $unit"
    fi
done
mkdir -p "$place"
rm -f "$removed"
for unit in $with; do
    cp "$here/$unit" "$place/$unit"
    chmod 644 "$place/$unit"
done
# shellcheck disable=SC2086 # a list
[ -z "$enable" ] || systemctl ${root:+--root="$root"} enable $enable
[ -n "$root" ] || systemctl daemon-reload
