# A Linux host inside the emulated machine: loads KVM and runs the guest of the side that its command line names.
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
echo always > /sys/kernel/mm/transparent_hugepage/enabled
echo always > /sys/kernel/mm/transparent_hugepage/defrag
mount -t tmpfs tmp /tmp
mount -t tmpfs tmp /run
for module in irqbypass kvm kvm-intel; do
    insmod /modules/$module.ko || echo "lab: cannot load $module"
done
read line < /proc/cmdline
for word in $line; do
    case $word in
        lab.side=*) side=${word#*=} ;;
        lab.address=*) address=${word#*=} ;;
    esac
done
ip link set lo up
ip address add $address dev eth0
ip link set eth0 up
. /job/$side.sh
echo "lab: QEMU ended with status $?"
poweroff -f
