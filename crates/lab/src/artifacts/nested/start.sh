#!/bin/busybox sh
# First process of the emulated machine: finds its disks, then hands over to the system on the first one.
/bin/busybox mount -t devtmpfs dev /dev
for module in scsi_common scsi_mod libata ata_piix sd_mod; do
    /bin/busybox insmod /modules/$module.ko || echo "lab: cannot load $module"
done
tries=0
until [ -b /dev/sdb ] || [ $tries -gt 100 ]; do /bin/busybox usleep 20000; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 -o ro,noload /dev/sda /system || echo "lab: no system disk"
/bin/busybox mount -t ext4 -o ro,noload /dev/sdb /system/job || echo "lab: no job disk"
/bin/busybox mount --move /dev /system/dev
exec /bin/busybox chroot /system /sbin/init
