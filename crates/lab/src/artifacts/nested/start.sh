#!/bin/busybox sh
# First process of the emulated machine, and of a Linux host inside it, which has its disks passed on: finds the disks, then
# hands over to the system on the first one. The lab fills in what stands between the signs.
/bin/busybox mount -t devtmpfs dev /dev
for module in @modules@; do
    /bin/busybox insmod /modules/$module.ko || echo "lab: cannot load $module"
done
tries=0
until [ -b /dev/@disk@b ] || [ $tries -gt 100 ]; do /bin/busybox usleep 20000; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 -o ro,noload /dev/@disk@a /system || echo "lab: no system disk"
/bin/busybox mount -t ext4 -o ro,noload /dev/@disk@b /system/job || echo "lab: no job disk"
/bin/busybox mount --move /dev /system/dev
exec /bin/busybox chroot /system @next@
