#!/bin/sh
# Sourced by dracut, so it must neither exit nor fail.
sh /usr/bin/janitor-boot.sh --root "${NEWROOT:-/sysroot}" 2>&1 | while read -r line; do
    echo "$line"
    { echo "$line" >/dev/kmsg; } 2>/dev/null || :
done
