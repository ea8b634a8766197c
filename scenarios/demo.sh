#!/bin/sh
# The bug that started it all, live on an untouched Debian 5.10: `cargo xtask demo`
# plays this on the console of a virtual machine.

show() {
  printf '\n\033[1m# %s\033[0m\n' "$*"
  eval "$*"
}

say() {
  printf '\n\033[1;36m%s\033[0m\n' "$*"
}

export TERM=xterm
stty cols 160 rows 40

# A host has a network card with an address; the tunnel's own is made from it.
ip link add eth0 type dummy
ip addr add 192.0.2.2/24 dev eth0
ip link set eth0 up

say "Kernel $(uname -r): packets of user ops (uid 1000) go into a sit tunnel over FOU."
show modprobe -a fou sit
show ip rule add uidrange 1000-1000 lookup 100
show ip -6 rule add uidrange 1000-1000 lookup 100
show ip link add name fou_test type sit remote 127.0.0.1 encap fou encap-sport auto encap-dport 1111
show ip link set fou_test up
show ip route add default dev fou_test table 100
show ip -6 route add default dev fou_test table 100

say "IPv4 and IPv6 pings start in the background; neither is answered. Which one vanishes where?"
(
  sleep 8
  setuidgid ops ping -I fou_test -c3 1.1.1.1
  setuidgid ops ping -6 -I fou_test -c3 fe80::d0b0:dfff:fe4c:fcbc
) >/dev/null 2>&1 &
show tracer watch --duration 16s
wait

say "The same as one traced command, with a report at its end."
show "tracer run -- sh -c 'setuidgid ops ping -I fou_test -c1 -W1 1.1.1.1; setuidgid ops ping -6 -I fou_test -c1 -W1 fe80::d0b0:dfff:fe4c:fcbc'"
status=$?

say "The device's counters agree:"
show ip -s -s link show fou_test

# 1 is what tracer answers when it found drops, and it must find this one.
[ "$status" -eq 1 ]
