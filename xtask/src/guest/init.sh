#!/bin/sh
# First process of a guest: makes the place habitable, runs one script, powers off.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
chmod 755 /
chmod 1777 /tmp /dev/shm /var/tmp
chown 1000:1000 /home/ops
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
sysctl -qw net.ipv4.ping_group_range="0 2147483647"
hostname guest

# The kernel patches its receive path when the first socket asks for timestamps,
# as each ping does, and when the last one goes. Emulated processors stumble
# over code that is patched under load, so one asks for ever.
ping -q -i 3600 127.0.0.1 >/dev/null 2>&1 3>&- &

cd /root

# What the script says goes to the host over the second serial port, through a
# pipe: programs must not take it for a terminal.
stty -F /dev/ttyS1 raw -echo
mkfifo /run/out
cat /run/out >/dev/ttyS1 &
carrier=$!
exec 3>/run/out

if [ -e /guest/on-console ]; then
  stty -F /dev/ttyS0 sane
  TERM=xterm setsid -c sh /guest/script </dev/ttyS0 >/dev/ttyS0 2>&1 3>&-
else
  setsid sh /guest/script </dev/null >&3 2>&1 3>&-
fi
status=$?

# Whatever still runs would keep the pipe open.
for process in /proc/[0-9]*; do
  id=${process#/proc/}
  case $id in
  1 | "$carrier") ;;
  *) [ -s "$process/cmdline" ] && kill -9 "$id" ;;
  esac
done 2>/dev/null
printf '\036guest-status %s\n' "$status" >&3
exec 3>&-
wait "$carrier"
poweroff -f
