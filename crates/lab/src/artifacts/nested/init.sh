#!/bin/sh
# The emulated machine's system: loads KVM and the network's modules, then runs the job's agent.
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc
read uptime _ < /proc/uptime; echo "lab: system after $uptime s"
mount -t sysfs sys /sys
# The kernel turns huge pages off on a machine this small; without them each 4 KiB that a host first touches is a fault.
echo always > /sys/kernel/mm/transparent_hugepage/enabled
echo always > /sys/kernel/mm/transparent_hugepage/defrag
mount -t tmpfs tmp /tmp
mount -t tmpfs tmp /run
for module in irqbypass kvm llc stp bridge tun tap vhost_iotlb vhost vhost_net; do
    [ ! -f /modules/$module.ko ] || insmod /modules/$module.ko || echo "lab: cannot load $module"
done
insmod /modules/kvm-intel.ko nested=1 || echo "lab: cannot load kvm-intel"
for parameter in enable_shadow_vmcs eptad pml vpid; do
    echo "lab: kvm_intel.$parameter=$(cat /sys/module/kvm_intel/parameters/$parameter)"
done
ip link set lo up
read uptime _ < /proc/uptime; echo "lab: KVM after $uptime s"
# The port to the lab: bytes as they are, no echo.
stty -F /dev/ttyS1 115200 raw -echo
/job/qavisor-agent --job /job/job.json < /dev/ttyS1 > /dev/ttyS1
echo "lab: the agent ended with status $?"
grep -E "thp_fault_alloc|thp_fault_fallback " /proc/vmstat
poweroff -f
