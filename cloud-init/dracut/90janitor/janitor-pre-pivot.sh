#!/bin/sh
# Sourced by dracut, so it must neither exit nor fail; and a boot is never held up. Old busyboxes have a timeout of their own.
for janitor_limit in 'timeout -k 5 60' 'timeout 60' 'timeout -t 60' ''; do
    $janitor_limit true 2>/dev/null && break
done
# Not into a pipe: busybox ends the shell alone, and what that has started would keep the pipe open.
$janitor_limit sh /usr/bin/janitor-boot.sh --root "${NEWROOT:-/sysroot}" >/run/janitor-boot.log 2>&1 </dev/null || :
while read -r line; do
    echo "$line"
    { echo "$line" >/dev/kmsg; } 2>/dev/null || :
done </run/janitor-boot.log
