# What the scenarios' setup, trigger and cleanup may call. POSIX sh: busybox runs it too.

# busybox sh prefers its own applets to PATH, and its ip knows no tunnels: name the files.
outside() {
    tool=$1
    rest=$PATH:
    while [ -n "$rest" ]; do
        if [ -x "${rest%%:*}/$tool" ]; then
            eval "$tool() { '${rest%%:*}/$tool' \"\$@\"; }"
            return
        fi
        rest=${rest#*:}
    done
}
outside ip
outside ping
outside modprobe

# quiet NETNS: no duplicate address detection, no router solicitations.
quiet() {
    ip netns exec "$1" sysctl -qw \
        net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
        net.ipv6.conf.all.router_solicitations=0 net.ipv6.conf.default.router_solicitations=0
}

# t2: namespaces A (10.0.0.1, fd00::1) and B (10.0.0.2, fd00::2), joined by v0 on both sides.
t2() {
    for n in A B; do
        ip netns add $n
        ip -n $n link set lo up
        quiet $n
    done
    ip link add v0 netns A type veth peer name v0 netns B
    ip -n A addr add 10.0.0.1/24 dev v0
    ip -n B addr add 10.0.0.2/24 dev v0
    ip -n A addr add fd00::1/64 dev v0 nodad
    ip -n B addr add fd00::2/64 dev v0 nodad
    ip -n A link set v0 up
    ip -n B link set v0 up
}

# inner NETNS N: the addresses 192.168.9.N and fd09::N on t0, and t0 up.
inner() {
    ip -n "$1" addr add "192.168.9.$2/24" dev t0
    ip -n "$1" addr add "fd09::$2/64" dev t0 nodad
    ip -n "$1" link set t0 up
}

# tun TYPE "OPTIONS OF A" "OPTIONS OF B": the tunnel t0 on both sides.
tun() {
    # Options are meant to be split.
    # shellcheck disable=SC2086
    ip -n A link add t0 type "$1" $2
    # shellcheck disable=SC2086
    ip -n B link add t0 type "$1" $3
    inner A 1
    inner B 2
}

# lone TYPE OPTIONS...: the tunnel t0 in A only.
lone() {
    ip -n A link add t0 type "$@"
    inner A 1
}

# pings and pings6: three packets through t0, answered or not.
pings() {
    ip netns exec A ping -c3 -i.3 -W1 192.168.9.2
}
pings6() {
    ip netns exec A ping -6 -c3 -i.3 -W1 fd09::2
}

# settle: lets the multicast reports of new addresses go by.
settle() {
    sleep 2.5
}

# seed: the tunnel of the published story, in the namespace of the machine itself.
seed() {
    modprobe fou
    modprobe sit
    sysctl -qw net.ipv6.conf.default.router_solicitations=0
    ip link set lo up
    # sit makes its link-local address from an IPv4 address of the host, which needs one.
    ip addr add 10.0.0.1/32 dev lo
    ip rule add uidrange 1000-1000 lookup 100
    ip link add name fou_test type sit remote 127.0.0.1 encap fou encap-sport auto encap-dport 1111
    ip link set fou_test up
    ip route add default dev fou_test table 100
    settle
}

# unseed: takes back what seed did beside the device.
unseed() {
    ip link del fou_test
    ip rule del uidrange 1000-1000 lookup 100
    ip addr del 10.0.0.1/32 dev lo
}

# clean: the namespaces go, and every device in them.
clean() {
    for n in A B R; do
        ip netns del $n 2>/dev/null
    done
}

# Both ends of the underlay, from A and from B.
L="local 10.0.0.1 remote 10.0.0.2"
M="local 10.0.0.2 remote 10.0.0.1"
