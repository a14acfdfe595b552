#!/bin/sh
# janitor-boot.sh [--root DIR] [--ledger-only] [--strict]
#
# The boot stage for hosts and initramfs without Python: before any container runtime has started, free the pod addresses
# that earlier boots left behind. The rule is that of agent/janitor/core/leases/boot.py, the order that of boot/stage.py,
# and one table of cases holds the three together (tests/system/test_boot_table.py). Files go to the same quarantine,
# with the same journal: 'janitor undo' puts them back.
#
# POSIX sh; awk, base64, cat, chmod, cut, date, dd, find, grep, head, id, ln, ls, mkdir, mv, od, readlink, rm, rmdir, sed,
# sha256sum, sleep, sort, stat, sync, tail, tr, wc and xargs as busybox has them. flock(1) is used where there is one; without it, being provably early has to do, and that is said.
# It exits 0 whatever happens, unless --strict. All of it is one file, because it is copied to hosts by hand.
# shellcheck disable=SC2015 # in 'a && b || c', c is meant for the failure of either
set -u
LC_ALL=C
export LC_ALL
umask 077
(true >&2) || exec 2>/dev/null # or files that are opened would get its number
exec 3>&2                      # for the one line that is said; programs are checked, not heard
to_journal=''                  # systemd.exec(5): whose device and inode these are, for services pass it on
[ -z "${JOURNAL_STREAM-}" ] || [ "$(stat -L -c %d:%i /proc/self/fd/3)" != "$JOURNAL_STREAM" ] || to_journal=1

root=/ strict=0 ledger_only='' work=''
later="on a running node use 'janitor clean'"
sockets='/run/containerd/containerd.sock /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock
    /var/snap/microk8s/common/run/containerd.sock /run/crio/crio.sock /run/cri-dockerd.sock /run/docker/containerd/containerd.sock'
caches='/var/lib/cni/results /var/lib/cni/cache/results /var/lib/cni/multus/results'
shared=/etc/cni/net.d
early='it existed before any container runtime of this boot started, so nothing that is running can own it'

say() { # PRIORITY SENTENCE
    [ -n "$to_journal" ] || set -- '' "$2"
    printf '%sjanitor-boot: %s\n' "$1" "$2" >&3 || : # nobody else can be told
}

leases() { if [ "$1" -eq 1 ]; then echo '1 lease'; else echo "$1 leases"; fi; }

late() { # REASON: nothing was changed
    say '<4>' "nothing done: $1"
    exit "$strict"
}

# The path of $2 as seen from here, symlinks followed as if $1 (no slash at its end) were the root.
inside() {
    [ -n "$1" ] || { printf '%s' "$2" && return; }
    todo=$2 walked='' links=0
    while [ -n "$todo" ]; do
        part=${todo%%/*}
        case $todo in */*) todo=${todo#*/} ;; *) todo='' ;; esac
        case $part in
        '' | .) continue ;;
        ..) walked=${walked%/*} && continue ;;
        esac
        if [ -L "$1$walked/$part" ]; then
            links=$((links + 1))
            [ "$links" -le 40 ] && link=$(readlink "$1$walked/$part") || return 1
            case $link in /*) walked='' ;; esac
            todo=$link/$todo
        else
            walked=$walked/$part
        fi
    done
    printf '%s' "$1$walked"
}

regular() { [ ! -L "$1" ] && { [ -f "$1" ] || [ ! -e "$1" ]; }; } # or not there yet

same() { [ -e "$1" ] && [ -e "$2" ] && [ "$(stat -L -c %d:%i "$1")" = "$(stat -L -c %d:%i "$2")" ]; }

# Whether the operator says that no other node uses the data directories: of TOML, one line above the first table, and nothing
# where it might be within a text of several lines.
said_ours() {
    file=$(inside "$base" /etc/janitor/janitor.toml) && [ -f "$file" ] && head -c 1048576 "$file" | awk '
        /"""|\047\047\047/ { doubt = 1 }
        /^[ \t]*\[/ { table = 1 }
        !table && /^[ \t]*data_dirs_are_ours[ \t]*=/ { said++; if ($0 ~ /^[ \t]*data_dirs_are_ours[ \t]*=[ \t]*true[ \t]*(#.*)?\r?$/) yes++ }
        END { exit !(said == 1 && yes == 1 && !doubt) }'
}

# Whose the file $1 says a directory, or this node, is: $his_number, $his_machine and $his_kind. 1 where there is none, or a copy,
# or a blank one, 2 where it cannot be understood. The same file as agent/janitor/host/cni/node_mark.py writes.
read_owner() {
    his_number='' his_machine='' his_kind=''
    [ -e "$1" ] || [ -L "$1" ] || return 1
    [ ! -f "$1" ] || [ -L "$1" ] || [ "$(head -c 256 "$1" | tr -d '\000' | wc -c)" -gt 0 ] || return 1
    [ -f "$1" ] && [ ! -L "$1" ] && [ "$(wc -l <"$1")" -eq 1 ] && words=$(head -c 256 "$1" | tr '\000' '?') && inode=$(stat -c %i "$1") &&
        printf '%s\n' "$words" | awk '!/^janitor-node 1 [0-9a-f]+ ([0-9a-f]+|-) (first|nested) [0-9]+$/ || NR > 1 { exit 1 }' || return 2
    # shellcheck disable=SC2086 # words are meant
    set -- $words
    [ ${#3} -eq 32 ] && { [ "$4" = - ] || [ ${#4} -eq 32 ]; } || return 2
    [ "$6" = "$inode" ] || return 1
    his_number=$3 his_machine=$4 his_kind=$5
}

# Why the data directory $1 is another node's, by the mark in it; nothing if the mark does not say so. core/model/node_mark.py has the rule.
another() {
    read_owner "$(inside "$base" "$1")/.janitor-node"
    case $? in
    0)
        [ "$his_kind" != "$own_kind" ] || [ "$his_number" != "$own_number" ] ||
            return 0
        [ "$his_kind" != first ] || [ "$own_kind" != first ] || [ "$his_machine" = - ] || [ "$his_machine" != "$own_machine" ] ||
            return 0
        where='in a container'
        [ "$his_kind" != first ] || where="in the machine's initial PID namespace"
        echo "$1/.janitor-node marks its data directory as another node's (number $his_number, $where); if only this node uses it, for example after a reinstallation, remove that file"
        ;;
    2) echo "it is not known which node owns its data directory: $1/.janitor-node is not a mark file of janitor; if it is this node, remove that file" ;;
    esac
}

# Write the file $1 with this node's name, whole and durably, over nothing but a copy.
write_owner() {
    read_owner "$1"
    case $? in 1) rm -f "$1" "$1.new" ;; *) return 1 ;; esac
    (set -C && : >"$1.new") && inode=$(stat -c %i "$1.new") &&
        printf 'janitor-node 1 %s %s %s %s\n' "$own_number" "$own_machine" "$own_kind" "$inode" >>"$1.new" &&
        sync && ln "$1.new" "$1" && [ "$(stat -c %i "$1")" = "$inode" ]
    made=$?
    rm -f "$1.new"
    sync
    return "$made"
}

# Leave this node's mark in the data directory $1, which bears no other's.
leave_mark() {
    marks=$(inside "$base" "$1") && [ -d "$marks" ] || return 0
    read_owner "$marks/.janitor-node" && marked=$his_number || marked=''
    if [ -z "$own_number" ]; then # one that it has lost is in the mark still
        own_number=$marked
        [ -n "$own_number" ] || own_number=$(tr -d - <"$proc/sys/kernel/random/uuid")
        number_file=$(inside "$base" /var/lib/janitor/node) && mkdir -p "${number_file%/*}" && write_owner "$number_file" ||
            { own_number='' && return 1; }
    fi
    [ -n "$marked" ] || write_owner "$marks/.janitor-node"
}

# No runtime or shim, no socket that listens, no network namespace that anything but a process keeps.
prove_early() {
    for process in "$proc"/[0-9]*; do
        { read -r name <"$process/comm"; } 2>/dev/null || continue
        case $name in
        containerd | crio | cri-dockerd | dockerd | kubelet | conmon | k3s | k3s-server | k3s-agent | rke2 | k0s | containerd-shim*)
            late "$name (process ${process##*/}) is already running; $later"
            ;;
        esac
    done
    cat "$proc"/[0-9]*/mountinfo 2>/dev/null | grep -q '^[0-9]* [0-9]* [0-9:]* net:\[' &&
        late "a network namespace is already mounted; $later"
    # In the kernel's list of sockets the fourth field says that one is listening, the seventh is its inode.
    listening=$(awk '$4 == "00010000" { sub("^/var/run/", "/run/", $8); print $8, $7 }' "$proc/1/net/unix") ||
        late "$proc/1/net/unix cannot be read"
    # shellcheck disable=SC2012 # find does not show where a link leads
    held=$(ls -l "$proc"/[0-9]*/fd 2>/dev/null | awk '
        /^\// { who = /\/1\/fd:$/ ? "first" : "other" }
        $NF ~ /^(socket|net):\[/ { print who, $NF }')
    case $held in *' net:['*) late "a process already holds a network namespace open; $later" ;; esac
    # Where nobody but the first process listens, there is a socket unit and no runtime yet.
    path=$(printf '%s\n' "$held" "$listening" | awk -v paths="$sockets" '
        BEGIN { for (i = split(paths, path, " "); i; i--) known[path[i]] = 1 }
        $1 == "first" || $1 == "other" { holds[$1, $2] = 1; next }
        ($1 in known) && !((("first", "socket:[" $2 "]") in holds) && !(("other", "socket:[" $2 "]") in holds)) { print $1; exit }')
    [ -z "$path" ] || late "a container runtime already answers at $path; $later"
    # A service with PrivateNetwork= has a namespace too, with nothing in it but loopback.
    own=$(readlink "$proc/1/ns/net") || late "$proc/1/ns/net cannot be read"
    looked=" $own "
    for process in "$proc"/[0-9]*; do
        theirs=$(readlink "$process/ns/net" 2>/dev/null) || continue
        case $looked in *" $theirs "*) continue ;; esac
        looked="$looked$theirs "
        up=$(
            awk '$1 == "|--" { a = $2 } $2 == "host" && $3 == "LOCAL" && a !~ /^127\./ { print a; exit }' "$process/net/fib_trie"
            awk '$1 != "00000000000000000000000000000001" { print $1; exit }' "$process/net/if_inet6"
        ) 2>/dev/null
        [ -z "$up" ] || late "an address ($up) is already up in the network namespace of process ${process##*/}; $later"
    done
    return 0
}

# stdin: the bytes of a CNI configuration, as od -tu1 shows them. Prints 'bad', or 'list NAME', and for each host-local network
# 'net' (or 'delegate', of multus) NAME DATADIR DISABLEGC FIREWALL, and 'cluster NAME' for a network multus refers to.
# shellcheck disable=SC2016 # awk's
configuration='
function bad() { print "bad"; exit }
function ws() { while (B[p] == 32 || B[p] == 9 || B[p] == 10 || B[p] == 13) p++ }
function hex(at,   i, d, v) {
    for (i = at; i < at + 4; i++) { d = index("0123456789abcdef", tolower(CH[B[i]])); if (!(B[i] in CH) || !d) bad(); v = v * 16 + d - 1 }
    return v
}
function more(low, high) { p++; if (B[p] < low || B[p] > high || p > n) bad() }
function text(   out, c, h) { # what no name can hold comes out as a question mark, and so does all that is too long for one
    for (p++; p <= n; p++) {
        if (length(out) > 1024) out = substr(out, 1, 1023) "?"
        c = B[p]
        if (c == 34) { p++; return out }
        if (c < 32) bad()
        if (c == 92) {
            c = B[++p]
            if (c == 34 || c == 92 || c == 47) out = out CH[c]
            else if (c == 98 || c == 102 || c == 110 || c == 114 || c == 116) out = out "?"
            else if (c == 117) {
                h = hex(p + 1); p += 4
                if (h >= 55296 && h <= 56319) { if (B[p + 1] != 92 || B[p + 2] != 117) bad(); h = hex(p + 3); p += 6; if (h < 56320 || h > 57343) bad(); h = 999 }
                if (h == 0 || (h >= 55296 && h <= 57343)) bad()
                out = out ((h in CH) ? CH[h] : "?")
            } else bad()
        } else if (c < 127) out = out CH[c]
        else { # one character of UTF-8
            if (c == 127) ;
            else if (c >= 194 && c <= 223) more(128, 191)
            else if (c >= 224 && c <= 239) { more(c == 224 ? 160 : 128, c == 237 ? 159 : 191); more(128, 191) }
            else if (c >= 240 && c <= 244) { more(c == 240 ? 144 : 128, c == 244 ? 143 : 191); more(128, 191); more(128, 191) }
            else bad()
            out = out "?"
        }
    }
    bad()
}
function unique(object, key) { # Go takes keys in any case, and merges or replaces what is there twice
    key = tolower(substr(key, 1, 64))
    if ((object, key) in K) bad()
    K[object, key] = 1; return key
}
function note(path, depth, type) { if (depth <= 8) T[path] = type } # nothing deeper is ever asked for
function value(path, depth,   c, key, s, open, object, count) {
    if (depth > 100 || p > n) bad()
    ws(); c = B[p]
    if (c == 123 || c == 91) {
        open = c; object = ++objects; note(path, depth, open == 123 ? "object" : "array"); p++; ws()
        for (count = 0; B[p] != open + 2; count++) {
            if (count) { if (B[p] != 44) bad(); p++; ws() }
            key = count
            if (open == 123) {
                if (B[p] != 34) bad()
                key = text(); gsub(/[^A-Za-z0-9_.-]/, "?", key)
                s = unique(object, key); if ((s in KEYS) && KEYS[s] != key) bad()
                ws(); if (B[p] != 58) bad()
                p++
            }
            value(depth < 8 ? path "/" key : "", depth + 1); ws()
        }
        p++; if (depth <= 8) L[path] = count
        return
    }
    if (c == 34) { s = text(); note(path, depth, "text"); if (depth <= 8) V[path] = s; return }
    for (s = ""; (B[p] in CH) && CH[B[p]] ~ /[A-Za-z0-9+.-]/; p++) {
        if (length(s) > 40 && s ~ /[0-9][0-9]$/ && CH[B[p]] ~ /[0-9]/) continue # what so long a number is, nobody asks
        if (length(s) > 100) bad()
        s = s CH[B[p]]
    }
    if (s == "true" || s == "false" || s == "null") note(path, depth, s)
    else if (s ~ /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$/) { note(path, depth, "number"); if (depth <= 8) V[path] = s + 0 }
    else bad()
}
function is(path, what) { return T[path] == "text" && V[path] == what }
function usable(path,   i) { # whether it names plugins
    if (!((path "/plugins") in T)) return T[path "/type"] == "text"
    if (T[path "/plugins"] != "array" || L[path "/plugins"] == 0) return 0
    for (i = 0; i < L[path "/plugins"]; i++)
        if (T[path "/plugins/" i] != "object" || T[path "/plugins/" i "/type"] != "text") return 0
    return 1
}
function named(path) { return T[path "/name"] == "text" && V[path "/name"] != "" && V[path "/name"] !~ "/" && V[path "/name"] !~ /^\.\.?$/ }
function falsy(path) {
    return !(path in T) || T[path] == "null" || T[path] == "false" || (T[path] == "text" && V[path] == "") ||
        (T[path] == "number" && V[path] == 0) || ((path in L) && L[path] == 0)
}
function plain(path,   part, k, i, out, m, up) { # as normpath has it
    k = split(path, part, "/"); m = 0
    for (i = 1; i <= k; i++) {
        if (part[i] == "" || part[i] == ".") continue
        if (part[i] == "..") { if (m) m--; continue }
        up[++m] = part[i]
    }
    for (i = 1; i <= m; i++) out = out "/" up[i]
    return (path ~ "^//[^/]" ? "/" : "") out
}
function collected(path) { return T[path "/disableGC"] == "true" || is(path "/disableGC", "true") ? 0 : 1 }
function walled(path,   i, k) {
    k = (path "/plugins") in T ? L[path "/plugins"] : 1
    for (i = 0; i < k; i++) if (is(((path "/plugins") in T ? path "/plugins/" i : path) "/type", "firewall")) return 1
    return 0
}
function networks(path, name, tag,   i, k, at, gc, wall, where) {
    gc = !collected("") || !collected(path); wall = walled("") || walled(path) # what stands around a delegate holds for it as well
    k = (path "/plugins") in T ? L[path "/plugins"] : 1
    for (i = 0; i < k; i++) {
        at = (path "/plugins") in T ? path "/plugins/" i : path
        if (is(at "/type", "flannel")) { if (T[at "/ipam"] == "object" && (at "/ipam/type") in T && !is(at "/ipam/type", "host-local")) continue }
        else if (T[at "/ipam"] != "object" || !is(at "/ipam/type", "host-local")) continue
        where = "/var/lib/cni/networks"
        if (T[at "/ipam"] == "object" && !falsy(at "/ipam/dataDir")) {
            if (T[at "/ipam/dataDir"] != "text" || V[at "/ipam/dataDir"] !~ "^/") continue
            where = plain(V[at "/ipam/dataDir"])
        }
        printf "%s\t%s\t%s\t%d\t%d\n", tag, name, where, gc, wall
    }
}
BEGIN {
    for (c = 32; c < 127; c++) CH[c] = sprintf("%c", c)
    for (i = split("name plugins type ipam dataDir disableGC delegates clusterNetwork", part, " "); i; i--) KEYS[tolower(part[i])] = part[i]
}
{ for (i = 1; i <= NF; i++) B[++n] = $i + 0 }
END {
    if (n > 262144) bad()
    p = 1; value("", 0); ws()
    if (p <= n || T[""] != "object" || !usable("") || !named("")) bad()
    print "list\t" V["/name"]
    networks("", V["/name"], "net")
    k = "/plugins" in T ? L["/plugins"] : 1
    for (i = 0; i < k; i++) {
        at = "/plugins" in T ? "/plugins/" i : ""
        if (!is(at "/type", "multus") && !is(at "/type", "multus-shim")) continue
        if (T[at "/clusterNetwork"] == "text") printf "cluster\t%s\t%d\t%d\n", V[at "/clusterNetwork"], !collected(""), walled("")
        if (T[at "/delegates"] == "array") for (j = 0; j < L[at "/delegates"]; j++) {
            d = at "/delegates/" j
            if (T[d] != "object" || !usable(d) || ((d "/name") in T && !named(d))) continue
            networks(d, (d "/name") in T ? V[d "/name"] : V["/name"], "delegate")
        }
    }
}'

# stdin: 'directory DIRECTORY', then for each of its files 'file NAME' and what configuration has printed. Prints 'unknown' where it
# cannot be told which networks CRI uses, and 'network DIRECTORY NAME USED DISABLEGC FIREWALL'. Where a distribution has a directory
# of its own, CRI uses $shared only for networks that are in both.
# shellcheck disable=SC2016
networks='
function base(path) { sub(".*/", "", path); return path }
function close_directory(   i, j, c, used, gc, wall) {
    if (lists && directory != shared) distribution = 1
    for (i = 1; i <= lists; i++) {
        used = i == 1; gc = wall = 0
        for (c = 1; c <= clusters && i > 1; c++)
            if (!(name[i] in first) || first[name[i]] == i) if (name[i] == cluster[c] || base(file[i]) == base(cluster[c])) {
                used = 1; gc += outer_gc[c]; wall += outer_wall[c]
            }
        for (j = 1; j <= count[i]; j++) {
            split(net[i, j], f, "\t")
            if (f[1] != "net" && i > 1) continue
            if (used && directory != shared) own[f[2]] = 1
            rows++; guest[rows] = directory == shared; called[rows] = f[2]; uses[rows] = used
            before[rows] = "network\t" f[3] "/" f[2] "\t" f[2]; after[rows] = (f[4] + gc) "\t" (f[5] + wall)
        }
    }
    lists = clusters = 0; split("", first)
}
BEGIN { FS = "\t" }
$1 == "directory" { close_directory(); directory = $2 }
$1 == "file" { source = $2 }
$1 == "bad" && !lists { unknown = 1 }
$1 == "list" { anything = 1; file[++lists] = source; name[lists] = $2; count[lists] = 0; if (!($2 in first)) first[$2] = lists }
$1 == "net" || $1 == "delegate" { net[lists, ++count[lists]] = $0 }
$1 == "cluster" && lists == 1 { cluster[++clusters] = $2; outer_gc[clusters] = $3; outer_wall[clusters] = $4 }
END {
    close_directory()
    for (i = 1; i <= rows; i++) print before[i] "\t" (uses[i] && !(guest[i] && distribution && !(called[i] in own)) ? 1 : 0) "\t" after[i]
    if (unknown || !anything) print "unknown"
}'

# stdin: the names in a directory, a line each. Prints those that are addresses as host-local writes them; the others go to $others.
# shellcheck disable=SC2016
addresses='
function four(s,   part, i) {
    if (s !~ /^[0-9.]+$/ || split(s, part, ".") != 4) return 0
    for (i = 1; i <= 4; i++) if (part[i] == "" || part[i] > 255 || length(part[i]) > 3 || part[i] ~ /^0./) return 0
    return 1
}
function six(s,   half, part, tail, group, i, k, m, run, best, at, out) {
    if (s !~ /^[0-9a-f:]+$/ || s ~ /:::/ || (k = split(s, half, "::")) > 2) return 0
    m = half[1] == "" ? 0 : split(half[1], part, ":")
    for (i = 1; i <= m; i++) group[i] = part[i]
    if (k == 2) {
        k = half[2] == "" ? 0 : split(half[2], tail, ":")
        if (m + k > 7) return 0
        for (i = m + 1; i <= 8 - k; i++) group[i] = "0"
        for (i = 1; i <= k; i++) group[8 - k + i] = tail[i]
    } else if (m != 8) return 0
    for (i = 1; i <= 8; i++) if (group[i] == "" || length(group[i]) > 4 || group[i] ~ /^0./) return 0
    if (group[1] group[2] group[3] group[4] group[5] group[6] == "00000ffff" ) return 0
    for (i = 8; i >= 1; i--) { run = group[i] == "0" ? run + 1 : 0; if (run > 1 && run >= best) { best = run; at = i } }
    for (i = 1; i <= 8; i++) {
        if (best && i == at) { out = out "::"; i += best - 1; continue }
        out = out (out == "" || out ~ /:$/ ? "" : ":") group[i]
    }
    return out == s
}
/^(lock|last_reserved_ip(\.[0-9]+)?)$/ { next }
four($0) || six($0) { print; next }
{ print >others }'

# stdin: what head -v shows of leases, as od -tu1 shows it; $sizes has a line 'SIZE NAME' for each. Prints NAME SHAPE ID INTERFACE,
# where SHAPE is whole, lease (anything else that names a CRI sandbox), corrupt or foreign: agent/janitor/core/model/lease.py.
# shellcheck disable=SC2016
shapes='
function strip(s) { sub("^" WS, "", s); sub(WS "$", "", s); return s }
function result(shape, id, interface) {
    if (interface !~ /^[A-Za-z0-9_.@:-]*$/) interface = "?"
    print name "\t" shape "\t" id "\t" interface; inside = 0; header = ""
}
function judge(   t, at, first, second, sep, k) {
    if (size[name] > 4096) return result("foreign")
    if (!solid) return result("corrupt")
    if (high) return result("foreign")
    if (nul) {
        k = index(before, CR); first = k ? substr(before, 1, k - 1) : before
        t = k ? substr(before, k + 1) : ""; sub("^" LF, "", t)
        return result(!junk && first != "" && length(first) <= 64 && first !~ /[^0-9a-f]/ && t !~ /[^A-Za-z0-9_]/ ? "corrupt" : "foreign")
    }
    t = strip(s); sep = ""
    if (at = index(t, CR LF)) sep = CR LF
    else if (at = index(t, LF)) sep = LF
    else if (at = index(t, CR)) sep = CR
    first = sep == "" ? t : strip(substr(t, 1, at - 1))
    second = sep == "" ? "" : strip(substr(t, at + length(sep)))
    if (length(first) == 64 && first !~ /[^0-9a-f]/) return result(sep == CR LF && second != "" ? "whole" : "lease", first, second)
    k = length(s)
    if (k > 12 && k < 64 && k != 32 && k != 40 && k != 56 && s !~ /[^0-9a-f]/) return result("corrupt")
    result("foreign")
}
BEGIN {
    for (c = 1; c < 128; c++) CH[c] = sprintf("%c", c)
    CR = CH[13]; LF = CH[10]; WS = "[ " CH[9] LF CH[11] CH[12] CR CH[28] CH[29] CH[30] CH[31] "]+"
    while ((getline line <sizes) > 0) {
        k = index(line, " "); name = substr(line, k + 1); size[name] = substr(line, 1, k - 1) + 0
        if (!size[name]) result("corrupt")
    }
}
{
    for (i = 1; i <= NF; i++) {
        b = $i + 0
        if (!inside) { # head -v: ==> NAME <==, after an empty line except at the beginning
            if (b != 10) { header = header CH[b]; continue }
            if (header == "") continue
            name = substr(header, 5, length(header) - 8)
            if (!(name in size)) { print "doubt"; exit }
            s = before = ""; nul = junk = high = solid = seen = 0; inside = 1
            want = size[name] < 4096 ? size[name] : 4096
            continue
        }
        seen++
        if (b == 0) { if (!nul) before = s; nul = 1 }
        else {
            if (b > 127) high = 1
            else s = s CH[b]
            if (nul) junk = 1
            if (b != 32 && b != 9 && b != 10 && b != 13) solid = 1
        }
        if (seen == want) judge()
    }
}'

# The mount that a path, which exists, is reached through: its number and file system.
mount_of() {
    awk -v path="$(readlink -f "$1")" '
        { point = $5; gsub(/\\040/, " ", point); k = length(point)
          if (point == "/" || path == point || index(path, point "/") == 1) if (k >= best) {
              best = k; for (i = 7; $i != "-"; i++) ; found = $1 " " $(i + 1) } }
        END { print found }' /proc/self/mountinfo
}

mount_above() { # the same for a path that need not exist yet, and its device: a subvolume of btrfs has one of its own
    above=$1
    while [ ! -e "$above" ] && [ ! -L "$above" ]; do above=${above%/*}; done
    mount_of "${above:-/}"
    stat -L -c %d "${above:-/}"
}

# Where files of the directory $1 go: rename(2) does not cross mounts or subvolumes, and what mv copies nobody can put back.
place_for() {
    data=${1%/*}
    wanted=$(mount_above "$(inside "$base" "$1")")
    for candidate in /var/lib/janitor/quarantine "${data%/*}/.janitor-quarantine" "$data/.janitor-quarantine"; do
        [ "$(mount_above "$(inside "$base" "$candidate")")" != "$wanted" ] || break
    done
    printf '%s' "$candidate"
}

listing() { # of the directory we are in: names of the kind that find's words select, newlines made harmless
    find . ! -name . -prune "$@" -print0 | tr '\n\000' '\013\n' | sed 's|^\./||'
}

# Look at the directory $1, into $work/$2.*: addresses (regular files), others, shapes, and stamps to tell a change by.
look() {
    here=$(inside "$base" "$1") || return 1
    : >"$work/$2.others"
    (
        cd "$here" || exit 1
        listing -type f | awk -v others="$work/$2.others" "$addresses" >"$work/$2.addresses" || exit 1
        listing ! -type f | grep -vxE 'lock|last_reserved_ip(\.[0-9]+)?' >>"$work/$2.others"
        [ $? -le 1 ] || exit 1
        stamps "$work/$2.addresses" >"$work/$2.stamps" || exit 1
        xargs -r stat -c '%s %n' <"$work/$2.addresses" >"$work/$2.sizes" || exit 1
        awk '$1 > 0 { print $2 }' "$work/$2.sizes" | xargs -r head -v -c 4096 | od -v -An -tu1 |
            awk -v sizes="$work/$2.sizes" "$shapes" | sort >"$work/$2.shapes"
        [ "$(wc -l <"$work/$2.shapes")" -eq "$(wc -l <"$work/$2.addresses")" ] && ! grep -qx doubt "$work/$2.shapes"
    )
}

stamps() { xargs -r stat -c '%n %d %i %Y %s %y %z' <"$1"; }

# JSON lines of the ledger for the directory $1, looked at as $2. The nanoseconds of a time are in what stat calls %y.
ledger_lines() {
    here=$(inside "$base" "$1")
    (cd "$here" && xargs -r sha256sum <"$work/$2.addresses") |
        awk -v stamps="$work/$2.stamps" -v directory="$1" '
            BEGIN { while ((getline line <stamps) > 0) { split(line, f, " "); stamp[f[1]] = line } }
            { split(stamp[$2], f, " ")
              if (f[5] > 4096 || f[7] !~ /\.[0-9]+$/) next
              sub(/.*\./, "", f[7]); ns = f[4] substr(f[7] "000000000", 1, 9); sub(/^0+/, "", ns)
              printf "{\"path\": \"%s/%s\", \"device\": %s, \"inode\": %s, \"mtime_ns\": %s, \"size\": %s, \"digest\": \"%s\"}\n", directory, $2, f[2], f[3], ns == "" ? 0 : ns, f[5], $1 }'
}

# stdin: what may be about firewall or disableGC: into $work/obscure if it is. Of $1, "any", any network may be meant.
doubt() {
    tr -d '\000' >"$work/said" || return 1
    grep -qiE 'firewall|disablegc|\\u' "$work/said" || return 0
    cat "$work/said" >>"$work/obscure" || return 1
    [ "$1" != any ] || ! grep -q multus "$work/said" || echo '\u' >>"$work/obscure" # its delegates may be in files of their own
}

# Where there is no configuration: what libcni's cache remembers of one, as far as it may be about firewall or disableGC. Of an
# entry without a configuration, but not blank as power cuts leave them, its name: it may have been about them.
remembered() {
    : >"$work/configs"
    for cache in $caches; do
        here=$(inside "$base" "$cache") && [ -d "$here" ] || continue
        (
            cd "$here" || exit 1
            listing ! -type f >>"$work/obscure" || exit 1
            listing -type f >"$work/entries" || exit 1
            grep -vx '[A-Za-z0-9_./@:+-]*' "$work/entries" >>"$work/obscure"
            grep -x '[A-Za-z0-9_./@:+-]*' "$work/entries" | sed 's|^|./|' >"$work/names" || exit 1
            xargs -r grep -L '"config": *"[^"]*"' <"$work/names" | while read -r name; do
                [ "$(tr -d '\000' <"$name" | head -c 1 | wc -c)" -eq 0 ] || echo "$name"
            done >>"$work/obscure"
            xargs -r sed -n 's/.*"config": *"\([^"]*\)".*/\1/p' <"$work/names" >>"$work/configs"
        ) || return 1
    done
    sort -u "$work/configs" >"$work/unique" || return 1
    while read -r config; do
        printf '%s' "$config" | base64 -d 2>/dev/null >"$work/text" || echo '\u' >"$work/text"
        case $((${#config} % 4))$config in 0*) ;; *) echo '\u' >"$work/text" ;; esac # busybox lets a lot pass
        case $config in *[!A-Za-z0-9+/=]*) echo '\u' >"$work/text" ;; esac
        doubt any <"$work/text" || return 1
    done <"$work/unique"
}

# A text that cannot be understood here, or is not in force any more, may still guard the network $1.
obscured() { grep -qF -e "$1" -e '\u' "$work/obscure"; }

# Once in a boot: it says that the boot stage has run, and is never replaced.
write_ledger() {
    rm -f "$state/ledger.json.new" 2>/dev/null && {
        printf '{"boot_id": "%s", "files": [\n' "$boot_id"
        [ ! -f "$work/ledger" ] || sed '$!s/$/,/' "$work/ledger"
        printf ']}\n'
    } 2>/dev/null >"$state/ledger.json.new" && chmod 644 "$state/ledger.json.new" && mv "$state/ledger.json.new" "$state/ledger.json" ||
        { rm -f "$state/ledger.json.new"; late "$state/ledger.json cannot be written"; }
}

# The CNI configuration, understood, in $work/configuration; what cannot be understood in $work/obscure; $work/present if there is any.
read_configuration() {
    for directory in "$shared" /var/lib/rancher/k3s/agent/etc/cni/net.d /var/lib/rancher/rke2/agent/etc/cni/net.d \
        /var/snap/microk8s/current/args/cni-network; do
        here=$(inside "$base" "$directory") && [ -d "$here" ] || continue
        printf 'directory\t%s\n' "$directory" >>"$work/configuration" && (cd "$here" && listing | sort) >"$work/files" || return 1
        while IFS= read -r file; do
            [ -L "$here/$file" ] || [ ! -d "$here/$file" ] || continue # as libcni does
            path=$(inside "$base" "$directory/$file")
            case $file in
            *.conf | *.conflist | *.json) : >"$work/present" ;;
            *) # an old configuration that somebody has put aside may say so
                [ ! -f "$path" ] || head -c 262145 "$path" | doubt this || return 1
                continue
                ;;
            esac
            printf 'file\t%s\n' "$file" >>"$work/configuration" || return 1
            if [ ! -f "$path" ]; then echo bad >>"$work/configuration" && continue || return 1; fi
            head -c 262145 "$path" >"$work/text" && size=$(wc -c <"$work/text") || return 1
            [ "$size" -eq "$(head -c 262145 "$path" | wc -c)" ] || return 1
            od -v -An -tu1 <"$work/text" | awk "$configuration" >"$work/understood" || return 1
            [ -s "$work/understood" ] || echo bad >"$work/understood" || return 1
            cat "$work/understood" >>"$work/configuration" || return 1
            grep -qx bad "$work/understood" || continue
            tr -d '\000' <"$work/text" >>"$work/obscure" || return 1
            [ "$size" -le 262144 ] || echo '\u' >>"$work/obscure" || return 1 # anything may be in the rest of it
        done <"$work/files"
    done
}

# Why the directory $1 is not this node's alone, by its file system and by the mark in its data directory; nothing if it is.
foreign() {
    # File systems that one kernel alone writes to, as in core/leases/scope.py; on any other the leases may be another machine's.
    filesystem=$(mount_above "$(inside "$base" "$1")" | head -n 1)
    case ${filesystem##* } in
    ext2 | ext3 | ext4 | xfs | btrfs | bcachefs | f2fs | jfs | nilfs2 | reiserfs | ubifs | zfs | tmpfs | ramfs | overlay) ;;
    *) echo "it is on ${filesystem##* }, where other machines may keep leases" && return ;;
    esac
    another "${1%/*}"
}

# Why the leases of the directory $1 are not CRI's to free; nothing if they may be. $2: how it was looked at.
refused() {
    name=${1##*/}
    case $name in [!A-Za-z0-9]* | *[!A-Za-z0-9_.-]* | '') echo 'its name is not a valid CNI network name' && return ;; esac
    case $1 in *[!A-Za-z0-9_./@:+-]*) echo 'its path has unusual characters' && return ;; esac
    [ ! -L "$(inside "$base" "${1%/*}")/$name" ] || { echo 'it is a symbolic link' && return; }
    why_not=$(foreign "$1")
    [ -z "$why_not" ] || { printf '%s\n' "$why_not" && return; }
    if obscured "$name"; then echo 'a CNI configuration that cannot be parsed may be about it, and could contain firewall or disableGC' && return; fi
    if [ -n "$unknown" ]; then
        [ -n "$absent" ] || { echo 'the CNI configuration cannot be read, and could contain firewall or disableGC; its leases are only recorded' && return; }
        case $name in podman | bridge | buildkit | nerdctl*) echo 'another container engine keeps its leases there' && return ;; esac
        if [ -s "$work/$2.others" ] || awk -F '\t' '$2 != "whole" { found = 1 } END { exit !found }' "$work/$2.shapes"; then
            echo "there is no CNI configuration, and not all files there are CRI leases"
        fi
        return
    fi
    awk -F '\t' -v directory="$1" '
        $1 == "network" && $2 == directory { used += $4; gc += $5; wall += $6 }
        END { if (!used) print "no CNI configuration that CRI uses contains this network"
              else if (gc) print "its CNI configuration sets disableGC"
              else if (wall) print "its plugin chain contains firewall, whose DEL works by address; its leases are only recorded" }' "$work/networks"
}

# Blank entries of libcni's cache that belong to the networks in $work/eligible: 'discard DIRECTORY NAME ID INTERFACE' lines.
blank_entries() {
    for cache in $caches; do
        here=$(inside "$base" "$cache") && [ -d "$here" ] || continue
        (
            cd "$here" || exit 1
            listing -type f | awk -v eligible="$work/eligible" '
                BEGIN { while ((getline name <eligible) > 0) ok[name] = 1 }
                { k = split($0, part, "-"); interface = part[k]; id = part[k - 1]
                  network = substr($0, 1, length($0) - length(interface) - length(id) - 2)
                  if (k > 2 && length(id) == 64 && id !~ /[^0-9a-f]/ && interface ~ /^[A-Za-z0-9_.@:]+$/ && network in ok)
                      print $0 "\t" id "\t" interface }' >"$work/entries"
            cut -f 1 "$work/entries" >"$work/names"
            stamps "$work/names" | sed "s|^|$cache/|" >>"$work/before"
            xargs -r stat -c '%s %n' <"$work/names" >"$work/sizes"
            awk '$1 == 0 { print $2 }' "$work/sizes" >"$work/blank" || exit 1
            # What libcni writes begins with a brace; the few that do not are looked at one by one.
            awk '$1 > 0 && $1 <= 1048576 { print $2 }' "$work/sizes" | xargs -r grep -L '^{' | while read -r name; do
                [ "$(tr -d '\000' <"$name" | head -c 1 | wc -c)" -ne 0 ] || echo "$name"
            done >>"$work/blank"
            awk -F '\t' -v blank="$work/blank" -v cache="$cache" '
                BEGIN { while ((getline name <blank) > 0) is[name] = 1 }
                $1 in is { print "discard\t" cache "\t" $0 "\tit is empty, or contains only NUL bytes" }' "$work/entries"
        ) || return 1
    done
}

# shellcheck disable=SC2317 # trap calls it
tidy_up() { # places that were made for nothing go as well
    while read -r place; do rmdir "$(inside "$base" "$place")"; done 2>/dev/null <"$work/quarantines"
    rm -rf "$work"
}

# shellcheck disable=SC2317
time_over() {
    say '<4>' "it was stopped before it had finished; use 'janitor clean' for the rest"
    exit "$strict"
}

# Move the $3 ('free' or 'discard') of directory $1 in $work/moves to its place $2, under host-local's lock. Outcomes to $work/outcomes.
move_all() {
    here=$(inside "$base" "$1") reason=''
    if [ "$(mount_above "$here")" != "$(mount_above "$2")" ]; then
        reason="no quarantine directory is on the same file system as $1"
    elif [ "$3" = free ]; then
        if [ ! -f "$here/lock" ] || [ -L "$here/lock" ]; then
            reason="$1 has no lock file: host-local has not run there, or the file was removed"
        elif [ -n "$flock" ]; then
            exec 7<"$here" 8<"$here/lock"
            for fd in 7 8; do
                flock -n "$fd" || { sleep 1 && flock -n "$fd"; } || reason="$1/lock is held by another process"
            done
        fi
    fi
    awk -F '\t' -v kind="$3" -v directory="$1" '$2 == kind && $3 == directory' "$work/moves" >"$work/batch"
    cut -f 4 "$work/batch" >"$work/names"
    (cd "$here" && stamps "$work/names" 2>/dev/null) | sed "s|^|$1/|" >"$work/now"
    awk -F '\t' -v reason="$reason" -v before="$work/before" -v now="$work/now" -v outcomes="$work/outcomes" '
        BEGIN { while ((getline line <before) > 0) was[line] = 1
                while ((getline line <now) > 0) if (line in was) { split(line, f, " "); same[f[1]] = 1 } }
        { why = (($3 "/" $4) in same) ? reason : "it was replaced or changed after it was checked"
          if (why == "") print; else print $1 "\tskipped\t" why >>outcomes }' "$work/batch" >"$work/ready"
    # Nearly all of them keep their names, so that one mv moves many. The place is new: there is nothing to be replaced.
    awk -F '\t' '$4 == $5 { print $4 }' "$work/ready" >"$work/names"
    # shellcheck disable=SC2016 # the words of another shell
    (cd "$here" && xargs -r sh -c 'mv "$@" "$0"' "$2" <"$work/names") 2>"$work/error"
    awk -F '\t' '$4 != $5 { print $4 "\t" $5 }' "$work/ready" | while IFS='	' read -r name target; do
        mv "$here/$name" "$2/$target"
    done 2>>"$work/error"
    (cd "$2" && listing -type f) >"$work/there"
    awk -F '\t' -v there="$work/there" -v error="$(head -n 1 "$work/error" | tr -dc '[:alnum:] ,.:/_-')" '
        BEGIN { while ((getline name <there) > 0) moved[name] = 1 }
        { print $1 "\t" (($5 in moved) ? "done\t" : "failed\t" error) }' "$work/ready" >>"$work/outcomes"
    exec 7<&- 8<&-
}

# ---------------------------------------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
    case $1 in
    --root) root=${2-} && [ $# -gt 1 ] && shift ;;
    --root=*) root=${1#--root=} ;;
    --ledger-only) ledger_only=1 ;;
    --strict) strict=1 ;;
    *) echo "janitor-boot: unknown argument $1; it takes --root DIR, --ledger-only and --strict" >&2 && exit 64 ;;
    esac
    shift
done

exec 2>/dev/null

# Which node this is about. Before switch_root(8) this kernel runs nothing of the node on the disk, and the /proc and /run it
# is going to have are those that are here, seen from beside its root or from a chroot(2) in it.
[ -d "$root" ] || late "--root $root is not a directory"
case $root in /*) ;; *) root=$PWD/$root ;; esac
base=${root%/}
[ "$(id -u)" = 0 ] || late 'it must run as root'
[ ! -e "$base/etc/initrd-release" ] && [ ! -L "$base/etc/initrd-release" ] || late "$root is an initramfs; set --root to the node's own root"
proc=$base/proc run=$base initramfs=''
if ! same "$proc/1/root/." "$base/."; then
    [ -e /proc/1/root/etc/initrd-release ] || [ -L /proc/1/root/etc/initrd-release ] ||
        late "$proc is not the /proc of the node at $root: run this on the running node"
    here=$(inside "$base" /var/lib/cni/networks) && [ -d "$here" ] ||
        late '/var/lib/cni/networks does not exist yet; if it is mounted later, run this after the mount'
    proc=/proc run='' initramfs=1
fi
{ read -r boot_id <"$proc/sys/kernel/random/boot_id"; } 2>/dev/null || late 'the boot ID cannot be read'
case $boot_id in '' | *[!0-9a-f-]*) late "the boot ID '$boot_id' is not valid" ;; esac

# The first PID namespace is the kernel's. A node may be a container itself (kind, LXC, nspawn): then its first process is
# systemd, and has booted it. In any other container the node's processes, its runtime's too, are out of sight.
namespace=$(readlink "$proc/1/ns/pid" 2>/dev/null || readlink /proc/self/ns/pid)
{ read -r first <"$proc/1/comm"; } 2>/dev/null || first='?'
own_kind=nested
[ "$namespace" != 'pid:[4026531836]' ] || own_kind=first
[ "$own_kind" = first ] || { [ "$first" = systemd ] && [ -d "$run/run/systemd/system" ]; } ||
    [ -e "$proc/1/root/etc/initrd-release" ] || [ -L "$proc/1/root/etc/initrd-release" ] ||
    late "only the processes of a container can be seen (its process 1 is $first), not those of the node; run this in the host's PID namespace"
[ "$own_kind" = first ] || said_ours ||
    late "this node has its own PID namespace, as a container has, so another node on this machine may use its directory; if none does, set data_dirs_are_ours = true in /etc/janitor/janitor.toml"
file=$(inside "$base" /etc/machine-id) && own_machine=$(head -c 64 "$file" 2>/dev/null) || own_machine=''
case $own_machine in '' | *[!0-9a-f]*) own_machine=- ;; esac
if [ ${#own_machine} -eq 32 ]; then own_machine=$(printf 'janitor %s' "$own_machine" | sha256sum | cut -c 1-32); else own_machine=-; fi
file=$(inside "$base" /var/lib/janitor/node) && read_owner "$file" || his_number=''
own_number=$his_number

# Alone, and for the first time in this boot.
state=$(inside "$run" /run/janitor) && mkdir -p "$state" 2>/dev/null && chmod 755 "$state" || late '/run/janitor cannot be created'
for path in "$state/lock" "$state/ledger.json"; do
    regular "$path" || late "$path is not a regular file"
done
(: >>"$state/lock") 2>/dev/null || late "$state/lock cannot be written"
exec 9>>"$state/lock"
flock=$(command -v flock) || flock=''
[ -z "$flock" ] || flock -n 9 || late 'another janitor is already at work on this node'
if [ -e "$state/ledger.json" ]; then
    seen=$(head -c 200 "$state/ledger.json" | sed -n '1s/^{"boot_id": *"\([^"]*\)".*/\1/p')
    [ -n "$seen" ] || late '/run/janitor/ledger.json is not a boot ledger'
    [ "$seen" != "$boot_id" ] || late "the boot stage has already run in this boot (/run/janitor/ledger.json); $later"
fi
prove_early
work=$state/boot.$$
mkdir "$work" 2>/dev/null || late "$work cannot be created"
trap tidy_up EXIT
trap time_over TERM
for name in configuration before eligible obscure plan quarantines outcomes; do : >"$work/$name"; done

# What there is.
unread="the CNI configuration cannot be read or copied to $work"
absent='' unknown=''
read_configuration && awk -v shared="$shared" "$networks" "$work/configuration" >"$work/networks" || late "$unread"
[ -e "$work/present" ] || absent=1
[ -z "$absent" ] || remembered || late "the CNI configuration in libcni's cache cannot be read"
! grep -qx unknown "$work/networks" || unknown=1
{
    here=$(inside "$base" /var/lib/cni/networks) && [ -d "$here" ] &&
        (cd "$here" && listing) | grep '^[A-Za-z0-9]' | sed 's|^|/var/lib/cni/networks/|'
    [ -n "$unknown" ] || awk -F '\t' '$1 == "network" { print $2 }' "$work/networks"
} | sort -u | grep -x '[A-Za-z0-9_./@:+-]*' >"$work/directories"
number=0 recorded=0
while read -r directory; do
    number=$((number + 1))
    here=$(inside "$base" "$directory") && [ -d "$here" ] || continue
    look "$directory" "$number" || late "$directory cannot be read"
    # Of another node's leases nothing is known, not even after its mark has been removed.
    [ -z "$(another "${directory%/*}")" ] || continue
    ledger_lines "$directory" "$number" >>"$work/ledger" || late "$work cannot be written"
    recorded=$((recorded + $(wc -l <"$work/$number.addresses")))
done <"$work/directories"

# A runtime that started while the leases were being read may have made one of them. What is older than this proof, and is
# still the same file when its turn comes, is dead whatever starts meanwhile.
prove_early
[ -z "$initramfs" ] || [ "$recorded" -gt 0 ] ||
    late 'there are no leases in /var/lib/cni/networks; if it is mounted later, run this after the mount'
sentence="recorded $(leases "$recorded") that existed before any container runtime of this boot started"
if [ -n "$ledger_only" ]; then
    write_ledger
    say '<5>' "$sentence"
    exit 0
fi

# What may go, and whose it is from now on.
kept='' number=0 full="the plan cannot be written to $work, so nothing is moved"
while read -r directory; do
    number=$((number + 1))
    [ -f "$work/$number.shapes" ] || continue
    why=$(refused "$directory" "$number")
    if [ -n "$why" ]; then
        left=$(grep -cv '	foreign	' "$work/$number.shapes")
        [ "$left" -eq 0 ] || kept="$kept; $directory: $(leases "$left") left: $why"
        continue
    fi
    [ -z "$unknown" ] || printf '%s\n' "${directory##*/}" >>"$work/eligible"
    awk -F '\t' -v directory="$directory" '
        $2 == "foreign" { next }
        { note = $2 == "corrupt" ? "it is empty, or host-local did not finish writing it" : "it names a CRI sandbox"
          print "free\t" directory "\t" $1 "\t" $3 "\t" $4 "\t" note }' "$work/$number.shapes" >>"$work/plan" &&
        sed "s|^|$directory/|" "$work/$number.stamps" >>"$work/before" || late "$full"
done <"$work/directories"
while read -r directory; do
    [ -L "$(inside "$base" "${directory%/*}")/${directory##*/}" ] || [ -n "$(foreign "$directory")" ] || leave_mark "${directory%/*}" ||
        { kept="$kept; the mark of this node: ${directory%/*} could not be marked as this node's" && break; }
done <"$work/directories"
[ -n "$unknown" ] || awk -F '\t' '
    $1 == "network" { name[$2] = $3; used[$2] += $4; left[$2] += $5 + $6 }
    END { for (d in name) if (used[d] && !left[d] && name[d] ~ /^[A-Za-z0-9][A-Za-z0-9_.-]*$/ && d !~ /[^A-Za-z0-9_.\/@:+-]/) print d, name[d] }' \
    "$work/networks" | while read -r directory name; do
    obscured "$name" || [ -n "$(another "${directory%/*}")" ] || echo "$name" || exit 1
done >"$work/eligible" || late "$full"
blank_entries >>"$work/plan" || late "$full"

# Into the journal and onto the disk; then the renames; then what became of them.
# The ledger comes when the disk has taken them: where nothing can be moved, a later run in this boot may do it.
if [ -s "$work/plan" ]; then
    pass=$(date -u +%Y%m%dT%H%M%SZ)-boot-$(printf '%.8s' "$boot_id")
    : >"$work/places"
    cut -f 2 "$work/plan" | sort -u >"$work/places.directories"
    while read -r directory; do
        printf '%s\t%s/%s\n' "$directory" "$(place_for "$directory")" "$pass" >>"$work/places" || late "$full"
    done <"$work/places.directories"
    awk -F '\t' -v places="$work/places" -v moves="$work/moves" -v pass="$pass" -v at="$(date +%s)" -v boot="$boot_id" -v early="$early" '
        BEGIN { while ((getline line <places) > 0) { split(line, f, "\t"); place[f[1]] = f[2] } }
        { n = NR - 1; target = (taken[place[$2], $3]++ ? "_" n "-" : "") $3
          print n "\t" $1 "\t" $2 "\t" $3 "\t" target >moves
          printf "{\"event\":\"intend\",\"pass\":\"%s\",\"n\":%d,\"at\":%s,\"boot_id\":\"%s\",\"quarantine\":\"%s/%s\",", pass, n, at, boot, place[$2], target
          printf "\"action\":{\"kind\":\"%s\",\"directory\":\"%s\",\"name\":\"%s\",\"container_id\":\"%s\",\"interface\":\"%s\",\"pod\":\"\",", $1, $2, $3, $4, $5
          printf "\"proof\":[\"%s\",\"%s\"],\"file\":null,\"ctime_ns\":0,\"chain\":\"\"}}\n", $6, early }' "$work/plan" >"$work/intentions" || late "$full"
    # Whatever has run out of room, it is seen here: a line for each, whole to its end, and room for what comes.
    awk -F '\t' 'NF != 6 { exit 1 }' "$work/plan" && awk '!/}$/ { exit 1 }' "$work/intentions" || late "$full"
    planned=$(wc -l <"$work/plan")
    [ "$(wc -l <"$work/moves")" -eq "$planned" ] && [ "$(wc -l <"$work/intentions")" -eq "$planned" ] &&
        cat "$work/moves" "$work/moves" "$work/before" >"$work/room" && rm "$work/room" || late "$full"
    journal=$(inside "$base" /var/lib/janitor/journal)
    cut -f 2 "$work/places" | sort -u >"$work/quarantines"
    while read -r place; do
        here=$(inside "$base" "$place") && mkdir -p "${here%/*}" 2>/dev/null && mkdir "$here" 2>/dev/null ||
            late "$place cannot be created, so nothing is moved"
    done <"$work/quarantines"
    mkdir -p "${journal%/*}" 2>/dev/null && regular "$journal" || late "the journal $journal cannot be used, so nothing is moved"
    # One byte is read before anything is written: a torn line is ended.
    torn=''
    [ ! -s "$journal" ] || [ -z "$(tail -c 1 "$journal")" ] || torn=1
    length=$(stat -c %s "$journal" 2>/dev/null) || length=0
    { [ -z "$torn" ] || echo; cat "$work/intentions"; } 2>/dev/null >>"$journal" && sync || {
        dd of="$journal" bs=1 seek="$length" count=0 2>/dev/null </dev/null # the disk is full: not of this
        [ "$length" -gt 0 ] || rm -f "$journal"
        late "the journal $journal cannot be written, so nothing is moved"
    }
    write_ledger
    prove_early
    while IFS='	' read -r directory place; do
        move_all "$directory" "$(inside "$base" "$place")" free
        move_all "$directory" "$(inside "$base" "$place")" discard
    done <"$work/places"
    sync
    awk -F '\t' -v pass="$pass" -v at="$(date +%s)" '
        { printf "{\"event\":\"%s\",\"pass\":\"%s\",\"n\":%d,\"at\":%s,\"detail\":\"%s\"}\n", $2, pass, $1, at, $3 }' "$work/outcomes" >>"$journal"
    sync
else
    write_ledger
fi

# In one line.
freed=$(awk -F '\t' -v outcomes="$work/outcomes" '
    BEGIN { while ((getline line <outcomes) > 0) { split(line, f, "\t"); done[f[1]] = f[2]; why[f[1]] = f[3] } }
    !($1 in done) { next }
    done[$1] == "done" { sub(".*/", "", $3); if ($2 == "free") free[$3]++; else discarded++; next }
    { if (!failed++) first = $3 "/" $4 ": " why[$1] }
    END { for (n in free) list = list (list == "" ? "" : ", ") free[n] " of " n
          if (list != "") printf "; freed %s", list
          if (discarded) printf "; discarded %d blank cache entr%s", discarded, discarded == 1 ? "y" : "ies"
          if (failed) printf "; %d could not be moved (%s)", failed, first }' "$work/moves" 2>/dev/null)
case $freed in *freed* | *discarded*) freed="$freed; 'janitor undo $pass' puts it back" ;; esac
[ -n "$flock" ] || kept="$kept; flock is not installed, so host-local's lock was not taken; that no runtime had started was the only protection"
case $freed in
*'could not be moved'*) say '<4>' "$sentence$freed$kept" && exit "$strict" ;;
esac
say '<5>' "$sentence$freed$kept"
exit 0
