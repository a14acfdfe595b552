#!/bin/sh
# init.sh HOSTNAME: the first process of a node; run in new namespaces with the node's directory as cwd.
#
# It turns the mount namespace into the node's file system and then waits. disk/ is the node's disk; what is
# not on it (/run, and whatever is written to /etc, /opt or /var/lib elsewhere) is memory and dies with it.
# The host's own /etc, /opt and /var/lib are lower layers: read, never written, and no mount point is made in
# them. All paths to the node's directory are relative, for /run may be about to cover it.
set -eu

mount -t tmpfs -o mode=755 lab memory
for directory in /etc /opt /var/lib; do
    mkdir -p "memory$directory/upper" "memory$directory/work"
    mount -t overlay -o "lowerdir=$directory,upperdir=memory$directory/upper,workdir=memory$directory/work" \
        lab "$directory"
done

mount -t tmpfs -o mode=755 lab /run
# /run/lab/slow: what the lab tells its slow plugin.
mkdir -p /run/netns /run/lab/slow /run/podlogs

place() {
    mkdir -p "$2"
    mount --bind "disk/$1" "$2"
}
place cni /var/lib/cni
place net.d /etc/cni/net.d
place plugins /opt/cni/bin
place kubelet /var/lib/kubelet
place janitor /var/lib/janitor
# By way of /run, so that a node which somebody nests in this one, with a /run of its own, does not find there what is said
# of this one (machine.py: OURS).
rm -rf /etc/janitor
place etc-janitor /run/lab/etc-janitor
ln -s /run/lab/etc-janitor /etc/janitor
place containerd /var/lib/containerd
place etc-containerd /etc/containerd
if [ -d disk/etc-kubernetes ]; then
    place etcd /var/lib/etcd
    place etc-kubernetes /etc/kubernetes
    # The kubelet writes /var/log/pods.
    mount -t tmpfs -o mode=755 lab /var/log
fi

# A /sys of this network namespace; the cgroups are mounts of their own and have to be carried over.
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs lab /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount --recursive --lazy /run/cgroup
rmdir /run/cgroup

mount -t proc lab /proc
mount --bind boot_id /proc/sys/kernel/random/boot_id
echo "$1" >/proc/sys/kernel/hostname
if [ -d disk/etc-kubernetes ]; then
    # kube-router loads modules, which would be the host's.
    if modprobe=$(command -v modprobe); then mount --bind /bin/true "$(readlink -f "$modprobe")"; fi
    # The kubelet wants these values, of sysctls that have no namespace: it finds them, and the host's stay.
    mkdir /run/lab/sysctl
    while read -r name value; do
        echo "$value" >"/run/lab/sysctl/${name##*/}"
        mount --bind "/run/lab/sysctl/${name##*/}" "/proc/sys/$name"
    done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
fi
ip link set lo up

# A node in a container of its own, as kind and nspawn make them, is told by its first process and by what that has made.
mkdir -p /run/systemd/system
cp /bin/cat /run/lab/systemd

echo ready
# Ends when the other side of the pipe is closed, so that no way of dying of its maker leaves the node behind.
# With SIGCHLD ignored the kernel reaps what shims leave to PID 1.
exec env --ignore-signal=CHLD /run/lab/systemd >/dev/null
