#!/bin/busybox sh
# First process of a Linux host inside the emulated machine, which has passed its disks on: finds them, and runs the job's.
/bin/busybox mount -t devtmpfs dev /dev
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk \
    failover net_failover virtio_net virtio_console; do
    /bin/busybox insmod /modules/$module.ko || echo "lab: cannot load $module"
done
tries=0
until [ -b /dev/vdb ] || [ $tries -gt 100 ]; do /bin/busybox usleep 20000; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 -o ro,noload /dev/vda /system || echo "lab: no system disk"
/bin/busybox mount -t ext4 -o ro,noload /dev/vdb /system/job || echo "lab: no job disk"
/bin/busybox mount --move /dev /system/dev
exec /bin/busybox chroot /system /bin/sh /job/host.sh
