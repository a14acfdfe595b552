#!/bin/sh
# install.sh [--root DIR] [--tmpfs | --remove]: puts the units where systemd looks, and enables them for the next boot.
#
# The programs they start are expected in /opt/janitor/bin; see README.md. janitor.service comes along where there is a
# janitor beside janitor-boot. --root works on a tree that is not running (an image, a mounted disk). --tmpfs installs
# and enables the mounts that keep leases in memory as well. --remove takes all of it away again, but for the programs, and
# leaves a mark that tells cloud-init's bootcmd to leave the boot stage alone.
set -eu
mounts='var-lib-cni-networks.mount var-lib-cni-results.mount' # all of it in the order of a boot
units='janitor-boot.service janitor.service'

here=$(cd "$(dirname "$0")" && pwd)
root='' tmpfs='' remove=''
while [ $# -gt 0 ]; do
    case $1 in
    --root) root=${2:?--root takes a directory} && shift ;;
    --tmpfs) tmpfs=1 ;;
    --remove) remove=1 ;;
    -h | --help) sed -n 's/^# \{0,1\}//p' "$0" | sed '/^shellcheck/d' && exit 0 ;;
    *) echo "install.sh: $1 is not known; it takes --root DIR, --tmpfs and --remove" >&2 && exit 64 ;;
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
        # A mount stays until the next boot: below it are the leases of pods that run.
        [ -n "$root" ] || [ "$unit" != janitor.service ] || systemctl stop "$unit"
        rm "$place/$unit"
    done
    for unit in $units; do # a masked one's is left by systemctl
        if [ -L "$place/$unit" ] || [ ! -e "$place/$unit" ]; then rm -f "$place/multi-user.target.wants/$unit"; fi
        [ ! -d "$place/$unit.d" ] || echo "install.sh: $place/$unit.d is yours, and has been left" >&2
    done
    mkdir -p "${removed%/*}"
    echo 'install.sh --remove was run here: cloud-init (bootcmd) is not to run the boot stage of janitor' >"$removed"
    echo "install.sh: $removed keeps user-data.yaml's bootcmd from running the boot stage; remove it with /opt/janitor" >&2
    [ -n "$root" ] || systemctl daemon-reload
    exit 0
fi

with='' enable=''
for unit in ${tmpfs:+$mounts} $units; do
    program=$root/opt/janitor/bin/${unit%.service}
    case $unit in
    *.mount) ;;
    *) if [ ! -x "$program" ] && [ ! -L "$program" ]; then
        [ "$unit" = janitor.service ] && continue # the boot stage alone, as where there is no Python
        echo "install.sh: $program is not there: install janitor first (systemd/README.md)" >&2
        exit 2
    fi ;;
    esac
    if [ -L "$place/$unit" ]; then # written through, a mask would take /dev/null with it
        echo "install.sh: $place/$unit is a link (is it masked?): remove it first" >&2
        exit 2
    fi
    with="$with $unit"
    if [ "$(systemctl ${root:+--root="$root"} is-enabled "$unit" 2>/dev/null)" = disabled ]; then
        echo "install.sh: $unit has been disabled, and stays so; 'systemctl enable $unit' ends that" >&2
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
