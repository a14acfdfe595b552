#!/bin/sh
# dracut sources this file, so it must not exit or fail, and it must not delay the boot. Old busyboxes use other timeout options.
for janitor_limit in 'timeout -k 5 60' 'timeout 60' 'timeout -t 60' ''; do
    $janitor_limit true 2>/dev/null && break
done
# Not into a pipe: busybox's timeout kills only the shell, and its children would keep the pipe open.
$janitor_limit sh /usr/bin/janitor-boot.sh --root "${NEWROOT:-/sysroot}" >/run/janitor-boot.log 2>&1 </dev/null || :
while read -r line; do
    echo "$line"
    { echo "$line" >/dev/kmsg; } 2>/dev/null || :
done </run/janitor-boot.log
