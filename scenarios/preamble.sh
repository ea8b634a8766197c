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
outside tc

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

# t3: A (10.0.1.1) and B (10.0.2.1) with the router R between them (.254 on both sides).
t3() {
    for n in A R B; do
        ip netns add $n
        ip -n $n link set lo up
        quiet $n
    done
    ip link add v0 netns A type veth peer name va netns R
    ip link add v0 netns B type veth peer name vb netns R
    ip -n A addr add 10.0.1.1/24 dev v0
    ip -n R addr add 10.0.1.254/24 dev va
    ip -n R addr add 10.0.2.254/24 dev vb
    ip -n B addr add 10.0.2.1/24 dev v0
    ip -n A link set v0 up
    ip -n R link set va up
    ip -n R link set vb up
    ip -n B link set v0 up
    ip -n A route add default via 10.0.1.254
    ip -n B route add default via 10.0.2.254
    ip netns exec R sysctl -qw net.ipv4.ip_forward=1
}

# known NETNS ADDRESS DEV PEER PEERDEV: ADDRESS is known to be PEERDEV in PEER; nobody asks.
known() {
    mac=$(ip netns exec "$4" cat "/sys/class/net/$5/address")
    ip -n "$1" neigh replace "$2" lladdr "$mac" dev "$3" nud permanent
}

# underlay_known: no ARP and no neighbour discovery between A and B of t2.
underlay_known() {
    known A 10.0.0.2 v0 B v0
    known B 10.0.0.1 v0 A v0
    known A fd00::2 v0 B v0
    known B fd00::1 v0 A v0
}

# overlay_known and overlay_known6: neither through t0; for tunnels that carry Ethernet.
overlay_known() {
    known A 192.168.9.2 t0 B t0
    known B 192.168.9.1 t0 A t0
}
overlay_known6() {
    known A fd09::2 t0 B t0
    known B fd09::1 t0 A t0
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

# tun4 TYPE "OPTIONS OF A" "OPTIONS OF B": the same without IPv6 on t0, hence without its reports.
tun4() {
    # shellcheck disable=SC2086
    ip -n A link add t0 type "$1" $2
    # shellcheck disable=SC2086
    ip -n B link add t0 type "$1" $3
    inner4 A 1
    inner4 B 2
}
inner4() {
    ip netns exec "$1" sysctl -qw net.ipv6.conf.t0.disable_ipv6=1
    ip -n "$1" addr add "192.168.9.$2/24" dev t0
    ip -n "$1" link set t0 up
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

# load and load6: 200 packets through t0, for tunnels that are well.
load() {
    ip netns exec A ping -q -c200 -i.01 192.168.9.2
}
load6() {
    ip netns exec A ping -6 -q -c200 -i.01 fd09::2
}

# many ADDRESS: 1,000 pings, each as soon as the one before it is answered; all have to be.
# From A, as what follows, unless FROM names another.
many() {
    ip netns exec "${FROM:-A}" ping -q -f -c1000 -w120 "$1"
}

# stream ADDRESS: 50 MB by TCP to B's ADDRESS, and as much back.
stream() {
    # The last one's word is not to be taken for this one's.
    rm -f "$SCENARIO_DIR/server"
    ip netns exec B xtask traffic tcp-serve --port 5001 >"$SCENARIO_DIR/server" &
    server=$!
    until grep -qs listening "$SCENARIO_DIR/server"; do
        kill -0 $server || return
        sleep .1
    done
    ip netns exec "${FROM:-A}" xtask traffic tcp-send --to "$1:5001" --bytes 50000000 && wait $server
}

# heavy and heavy6: all that through t0, whose packets must not be too big for the underlay.
heavy() {
    many 192.168.9.2 && stream 192.168.9.2
}
heavy6() {
    many fd09::2 && stream "[fd09::2]"
}

# roomy: t0 leaves room for any outer header.
roomy() {
    ip -n A link set t0 mtu 1300
    ip -n B link set t0 mtu 1300
}

# patient: fragments are waited for however many others come in between, as they do where
# several processors receive at their leisure.
patient() {
    for n in A B; do
        ip netns exec $n sysctl -qw net.ipv4.ipfrag_max_dist=0
    done
}

# rules NETNS RULES: nftables rules.
rules() {
    printf '%s\n' "$2" | ip netns exec "$1" nft -f -
}

# peers "ALLOWED OF A" "ALLOWED OF B": the WireGuard tunnel t0 on both sides, without addresses,
# and what each side accepts from the other.
peers() {
    modprobe wireguard
    for n in A B; do
        ip -n $n link add t0 type wireguard
        (umask 077 && wg genkey >"${SCENARIO_DIR:-/tmp}/key.$n")
        ip netns exec $n wg set t0 private-key "${SCENARIO_DIR:-/tmp}/key.$n" listen-port 51820
    done
    a=$(wg pubkey <"${SCENARIO_DIR:-/tmp}/key.A")
    b=$(wg pubkey <"${SCENARIO_DIR:-/tmp}/key.B")
    ip netns exec A wg set t0 peer "$b" endpoint 10.0.0.2:51820 allowed-ips "$1"
    ip netns exec B wg set t0 peer "$a" endpoint 10.0.0.1:51820 allowed-ips "$2"
}

# ipsec_modules: what IPsec by hand needs.
ipsec_modules() {
    modprobe xfrm_user
    modprobe esp4
}

# sa NETNS SRC DST SPI KEY OPTIONS...: an ESP security association; KEY is 20 bytes in hexadecimal.
sa() {
    netns=$1 src=$2 dst=$3 spi=$4 key=$5
    shift 5
    ip -n "$netns" xfrm state add src "$src" dst "$dst" proto esp spi "$spi" \
        aead 'rfc4106(gcm(aes))' "$key" 128 "$@"
}

# secured SELECTOR...: A and B encrypt, in tunnel mode, what the policies with SELECTOR cover.
secured() {
    for n in A B; do
        sa $n 10.0.0.1 10.0.0.2 0x1001 "$KEY" mode tunnel flag af-unspec "$@"
        sa $n 10.0.0.2 10.0.0.1 0x1002 "$KEY" mode tunnel flag af-unspec "$@"
    done
    for family in -4 -6; do
        policy $family A out 10.0.0.1 10.0.0.2 "$@"
        policy $family A in 10.0.0.2 10.0.0.1 "$@"
        policy $family B out 10.0.0.2 10.0.0.1 "$@"
        policy $family B in 10.0.0.1 10.0.0.2 "$@"
    done
}
# secured6: the same over the IPv6 underlay.
secured6() {
    for n in A B; do
        sa $n fd00::1 fd00::2 0x1001 "$KEY" mode tunnel flag af-unspec "$@"
        sa $n fd00::2 fd00::1 0x1002 "$KEY" mode tunnel flag af-unspec "$@"
    done
    for family in -4 -6; do
        policy $family A out fd00::1 fd00::2 "$@"
        policy $family A in fd00::2 fd00::1 "$@"
        policy $family B out fd00::2 fd00::1 "$@"
        policy $family B in fd00::1 fd00::2 "$@"
    done
}
policy() {
    any=0.0.0.0/0
    [ "$1" = -4 ] || any=::/0
    netns=$2 direction=$3 src=$4 dst=$5
    shift 5
    ip -n "$netns" xfrm policy add src $any dst $any dir "$direction" "$@" \
        tmpl src "$src" dst "$dst" proto esp mode tunnel
}

# l2tp "OPTIONS OF A" "OPTIONS OF B": the L2TPv3 Ethernet session t0 on both sides, over UDP.
l2tp() {
    modprobe l2tp_netlink
    modprobe l2tp_eth
    l2tp_end A 10.0.0.1 10.0.0.2 "$1"
    l2tp_end B 10.0.0.2 10.0.0.1 "$2"
}
l2tp_end() {
    ip -n "$1" l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 encap udp \
        local "$2" remote "$3" udp_sport 1701 udp_dport 1701
    # shellcheck disable=SC2086
    ip -n "$1" l2tp add session name t0 tunnel_id 1 session_id 1 peer_session_id 1 $4
}

# gtp "STATION OF A" "STATION OF B": the GTPv1 tunnel t0 on both sides, a context for each.
gtp() {
    modprobe gtp
    tun4 gtp "role sgsn" "role ggsn"
    ip netns exec A xtask traffic gtp-context --dev t0 --station "$1" --peer 10.0.0.2 --incoming 1 --outgoing 2
    ip netns exec B xtask traffic gtp-context --dev t0 --station "$2" --peer 10.0.0.1 --incoming 2 --outgoing 1
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
L6="local fd00::1 remote fd00::2"
M6="local fd00::2 remote fd00::1"
# And the same over the router of t3.
L3="local 10.0.1.1 remote 10.0.2.1"
M3="local 10.0.2.1 remote 10.0.1.1"

# A key of `sa`, and another one.
KEY=0x0102030405060708090a0b0c0d0e0f1011121314
OTHER_KEY=0x2122232425262728292a2b2c2d2e2f3031323334
