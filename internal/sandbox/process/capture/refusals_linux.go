package capture

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// refusals is the group of the namespace's own netfilter log in which refused packets are.
const refusals = 1

// linux/netfilter/nfnetlink_log.h
const (
	logConfig    = 1 // NFULNL_MSG_CONFIG
	configCmd    = 1 // NFULA_CFG_CMD
	configMode   = 2 // NFULA_CFG_MODE
	configQueue  = 5 // NFULA_CFG_QTHRESH
	commandBind  = 1 // NFULNL_CFG_CMD_BIND
	copyPacket   = 2 // NFULNL_COPY_PACKET
	copiedLength = 64
)

// RefuseMessage goes after RedirectMessage. With it, UDP that is neither DNS nor to the guest's own loopback ends in an error of the call that
// sends it (EPERM) and in a log, where else it would be taken in and go nowhere. Without it, which is where the kernel has no nft_log, a sender
// waits for an answer that never comes.
func RefuseMessage() Message {
	return Message{Name: "refuse UDP", Protocol: unix.NETLINK_NETFILTER, Bytes: refuseBatch(DNSPort), Optional: true}
}

// ListenForRefusals is what a netlink socket for Refusals is sent, once, by who has CAP_NET_ADMIN over the namespace. Nothing answers it.
func ListenForRefusals() []byte {
	var b builder
	b.message(unix.NFNL_SUBSYS_ULOG<<8|logConfig, 0, func() {
		b.b = append(b.b, unix.AF_UNSPEC, 0, 0, refusals) // struct nfgenmsg; the group in network order
		b.attr(configCmd, []byte{commandBind})
		b.attr(configMode, append(binary.BigEndian.AppendUint32(nil, copiedLength), copyPacket, 0))
		b.number(configQueue, 1) // tell of each at once
	})
	return b.b
}

// refuseBatch is
//
//	table inet ebb {
//	  chain refuse {
//	    type filter hook output priority filter; policy accept;
//	    meta l4proto udp ip daddr 127.0.0.0/8 accept
//	    meta l4proto udp ip6 daddr ::1 accept
//	    meta l4proto udp th sport DNS accept     # answers to what was redirected
//	    meta l4proto udp log group 1 snaplen 64 queue-threshold 1 drop
//	  }
//	}
func refuseBatch(dns uint16) []byte {
	const chain, priority = "refuse", 0 // NF_IP_PRI_FILTER, where DNS has been redirected to loopback already
	var b builder
	b.batch(func() {
		b.chain(chain, "filter", priority)
		udp := func(flags uint16, rest ...func()) {
			b.rule(chain, flags, func() {
				b.protocol(unix.IPPROTO_UDP)
				for _, f := range rest {
					f()
				}
			})
		}
		udp(0, b.toLoopback4, b.accept)
		udp(0, b.toLoopback6, b.accept)
		udp(0, func() { b.sourcePort(dns) }, b.accept)
		udp(unix.NLM_F_ACK, b.log, b.drop)
	})
	return b.b
}

func (b *builder) log() {
	b.expression("log", func() {
		b.attr(unix.NFTA_LOG_GROUP, binary.BigEndian.AppendUint16(nil, refusals))
		b.number(unix.NFTA_LOG_SNAPLEN, copiedLength)
		b.attr(unix.NFTA_LOG_QTHRESHOLD, binary.BigEndian.AppendUint16(nil, 1))
	})
}
