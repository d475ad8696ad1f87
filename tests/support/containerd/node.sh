#!/bin/sh
# A node's namespaces, made and entered. TABLE lists the cgroup hierarchies, one a line: kind, mount option, mount point.
#   node.sh make TABLE CGROUP BUSYBOX     makes them, prints the pid of their first process, and stays
#   node.sh enter TABLE CGROUP PROGRAM... runs a program in them, in the cgroup of the node's daemons
set -eu
stage=$1 table=$2 cgroup=$3
shift 3

case $stage in
make)
    # A cgroup namespace has the cgroups of the process that makes it for its root (cgroup_namespaces(7)).
    while read -r _ _ where; do echo $$ > "$where/$cgroup/cgroup.procs"; done < "$table"
    exec unshare --cgroup --mount --net --pid --fork --kill-child --propagation private sh "$0" inside "$table" "$cgroup" "$@"
    ;;
inside)
    busybox=$1
    # The machine's /proc, still: it tells our pid as the machine counts.
    read -r pid _ < /proc/self/stat
    mount -t proc proc /proc
    # /var/lib/cni cannot be moved by containerd's configuration, and the machine need not have it.
    mount -t tmpfs tmpfs /run
    mkdir -p /run/netns /run/lib/upper /run/lib/work
    mount -t overlay -o lowerdir=/var/lib,upperdir=/run/lib/upper,workdir=/run/lib/work overlay /var/lib
    # An overlay cannot be the upper layer of another one.
    mkdir -p /var/lib/containerd
    mount -t tmpfs tmpfs /var/lib/containerd
    # sysfs shows the network namespace of the process that mounts it.
    mount -t sysfs sysfs /sys
    grep -q ' /sys/fs/cgroup$' "$table" || mount -t tmpfs cgroup /sys/fs/cgroup
    while read -r kind option where; do
        mkdir -p "$where"
        mount -t "$kind" -o "$option" "$kind" "$where"
    done < "$table"
    "$busybox" ip link set lo up
    echo "$pid"
    # Orphans of a pid namespace become children of its first process; ignoring SIGCHLD has the kernel reap them (wait(2)).
    trap '' CHLD
    exec "$busybox" sleep 2147483647
    ;;
enter)
    while read -r _ _ where; do echo $$ > "$where/runtime/cgroup.procs"; done < "$table"
    exec "$@"
    ;;
esac
