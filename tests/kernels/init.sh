#!/bin/busybox sh
# SPDX-License-Identifier: MIT
#
# The first process of the guest that run.sh boots: runs tests/run, and powers off.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
ln -sf /proc/self/fd /dev/fd
ip link set lo up
ulimit -n 20000 # some tests use up all there are

cd /w
. /settings
echo "uname -r: $(uname -r)"
sh tests/run "$@"
grep '^not ok' build/tests/*.log /dev/null | grep -v '# SKIP' | sed 's,.*/,failed: ,; s,[.]log:not ok [0-9]* - ,: ,'
dmesg | grep -E 'BUG|Oops|WARNING|hung task|stall' | head -n 20 | sed 's/^/kernel: /'
poweroff -f
