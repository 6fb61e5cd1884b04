package capture

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// loopback is the index of lo, the first device of every new namespace.
const loopback = 1

// Message is one write to a netlink socket, and the least that its answer must say.
//
// The kernel works while the write lasts, so the answer is there when it returns: read without waiting. The first datagram that
// comes back is an nlmsgerr (linux/netlink.h): a header of 16 bytes, then a negated errno in the machine's byte order, which is 0
// when everything in the Message was done. [Outcome] reads it.
type Message struct {
	Name     string
	Protocol int    // of the AF_NETLINK socket: NETLINK_ROUTE or NETLINK_NETFILTER
	Bytes    []byte // to be sent whole, by one sendto to pid 0
	Optional bool   // a failure takes something away, but not everything
}

// SetupMessages bring loopback up and make every address one of the namespace's own ("AnyIP"), so that sockets can be bound to
// any, and nothing is unreachable. They want CAP_NET_ADMIN over the namespace, and this order.
func SetupMessages(ipv6 bool) []Message {
	all := []Message{
		{Name: "set lo up", Protocol: unix.NETLINK_ROUTE, Bytes: linkUp()},
		// Without the preferred source, connections would come from the address they go to.
		{Name: "route all IPv4 to lo", Protocol: unix.NETLINK_ROUTE, Bytes: anyRoute(unix.AF_INET, []byte{127, 0, 0, 1})},
	}
	if ipv6 {
		all = append(all, Message{Name: "route all IPv6 to lo", Protocol: unix.NETLINK_ROUTE, Bytes: anyRoute(unix.AF_INET6, nil), Optional: true})
	}
	return all
}

// RedirectMessage has nf_tables bring every TCP connection that does not go to loopback to CapturePort, and DNS to wherever to
// DNSPort. It wants CAP_NET_ADMIN over the namespace.
//
// A kernel that cannot do it says so: socket() fails with EPROTONOSUPPORT where nfnetlink is missing; the answer is EOPNOTSUPP
// where nf_tables is (or EINVAL before Linux 5.2, which cannot do NAT in the inet family), ENOENT where the nat chain or one of
// meta, cmp, payload, immediate and redir is, EPERM without the capability. A batch is done whole or not at all.
func RedirectMessage() Message {
	return Message{Name: "redirect connections", Protocol: unix.NETLINK_NETFILTER, Bytes: redirectBatch(CapturePort, DNSPort), Optional: true}
}

// UntrackMessage goes after RedirectMessage and takes the kernel's memory of connections from all that needs none: the guest's own
// loopback, and UDP. That memory is no cgroup's, and following every packet costs time. Nothing else is lost where the kernel cannot do it.
func UntrackMessage() Message {
	return Message{Name: "leave loopback untracked", Protocol: unix.NETLINK_NETFILTER, Bytes: untrackBatch(CapturePort, DNSPort), Optional: true}
}

// Outcome reads what came back for a Message.
func Outcome(m Message, answer []byte) error {
	if len(answer) < 20 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("%s: the kernel's answer is not one", m.Name)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 {
		return fmt.Errorf("%s: %w", m.Name, os.NewSyscallError("netlink", unix.Errno(-code)))
	}
	return nil
}

// HasIPv6 reports whether new namespaces of this machine have IPv6.
func HasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// builder appends netlink's structures: headers and attributes, each padded to four bytes, lengths filled in when they end.
type builder struct{ b []byte }

func (b *builder) pad() {
	for len(b.b)%4 != 0 {
		b.b = append(b.b, 0)
	}
}

// message appends one whole nlmsghdr with what body appends.
func (b *builder) message(kind, flags uint16, body func()) {
	at := len(b.b)
	b.b = binary.NativeEndian.AppendUint32(b.b, 0)
	b.b = binary.NativeEndian.AppendUint16(b.b, kind)
	b.b = binary.NativeEndian.AppendUint16(b.b, flags|unix.NLM_F_REQUEST)
	b.b = binary.NativeEndian.AppendUint32(b.b, uint32(at)) // sequence: unique in a batch
	b.b = binary.NativeEndian.AppendUint32(b.b, 0)
	body()
	binary.NativeEndian.PutUint32(b.b[at:], uint32(len(b.b)-at))
}

// attr appends one nlattr.
func (b *builder) attr(kind uint16, value []byte) {
	b.b = binary.NativeEndian.AppendUint16(b.b, uint16(4+len(value)))
	b.b = binary.NativeEndian.AppendUint16(b.b, kind)
	b.b = append(b.b, value...)
	b.pad()
}

func (b *builder) text(kind uint16, s string) { b.attr(kind, append([]byte(s), 0)) }

// number appends an attribute as nf_tables wants its numbers: in network order.
func (b *builder) number(kind uint16, v uint32) { b.attr(kind, binary.BigEndian.AppendUint32(nil, v)) }

// nest appends an attribute of attributes.
func (b *builder) nest(kind uint16, body func()) {
	at := len(b.b)
	b.b = binary.NativeEndian.AppendUint16(b.b, 0)
	b.b = binary.NativeEndian.AppendUint16(b.b, kind|unix.NLA_F_NESTED)
	body()
	binary.NativeEndian.PutUint16(b.b[at:], uint16(len(b.b)-at))
}

func linkUp() []byte {
	var b builder
	b.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, func() { // struct ifinfomsg
		b.b = append(b.b, unix.AF_UNSPEC, 0, 0, 0)
		b.b = binary.NativeEndian.AppendUint32(b.b, loopback)
		b.b = binary.NativeEndian.AppendUint32(b.b, unix.IFF_UP)
		b.b = binary.NativeEndian.AppendUint32(b.b, unix.IFF_UP) // what of the flags changes
	})
	return b.b
}

// anyRoute is `ip route add local default dev lo table local`, with a source where given.
func anyRoute(family byte, source []byte) []byte {
	scope := byte(unix.RT_SCOPE_HOST)
	if family == unix.AF_INET6 {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	var b builder
	b.message(unix.RTM_NEWROUTE, unix.NLM_F_ACK|unix.NLM_F_CREATE, func() { // struct rtmsg
		b.b = append(b.b, family, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, scope, unix.RTN_LOCAL, 0, 0, 0, 0)
		b.attr(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, loopback))
		if source != nil {
			b.attr(unix.RTA_PREFSRC, source)
		}
	})
	return b.b
}

const (
	table    = "ebb"
	nfDrop   = 0 // NF_DROP of linux/netfilter.h
	nfAccept = 1 // NF_ACCEPT
)

// batch appends messages to nf_tables that are done whole or not at all. One alone is acknowledged, which last is told: the first
// answer is then either an error or the end of all.
func (b *builder) batch(messages func()) {
	frame := func(kind uint16) {
		b.message(kind, 0, func() { b.b = append(b.b, unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES) })
	}
	frame(unix.NFNL_MSG_BATCH_BEGIN)
	messages()
	frame(unix.NFNL_MSG_BATCH_END)
}

// nft appends one message about the inet family.
func (b *builder) nft(kind, flags uint16, body func()) {
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_CREATE|flags, func() {
		b.b = append(b.b, unix.NFPROTO_INET, 0, 0, 0) // struct nfgenmsg
		body()
	})
}

// chain appends a chain of the table that sees what the namespace's own sockets send.
func (b *builder) chain(name, kind string, priority int32) {
	b.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_EXCL, func() {
		b.text(unix.NFTA_CHAIN_TABLE, table)
		b.text(unix.NFTA_CHAIN_NAME, name)
		b.nest(unix.NFTA_CHAIN_HOOK, func() {
			b.number(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_OUT)
			b.number(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		})
		b.number(unix.NFTA_CHAIN_POLICY, nfAccept)
		b.text(unix.NFTA_CHAIN_TYPE, kind)
	})
}

func (b *builder) rule(chain string, flags uint16, expressions func()) {
	b.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_APPEND|flags, func() {
		b.text(unix.NFTA_RULE_TABLE, table)
		b.text(unix.NFTA_RULE_CHAIN, chain)
		b.nest(unix.NFTA_RULE_EXPRESSIONS, expressions)
	})
}

// redirectBatch is
//
//	table inet ebb {
//	  chain out {
//	    type nat hook output priority dstnat; policy accept;
//	    meta l4proto udp th dport 53 redirect to :DNS
//	    meta l4proto tcp th dport 53 redirect to :DNS
//	    ip daddr 127.0.0.0/8 accept
//	    ip6 daddr ::1 accept
//	    meta l4proto tcp redirect to :TCP
//	  }
//	}
func redirectBatch(tcp, dns uint16) []byte {
	const chain, priority = "out", -100 // NF_IP_PRI_NAT_DST
	var b builder
	b.batch(func() {
		b.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_EXCL, func() { b.text(unix.NFTA_TABLE_NAME, table) })
		b.chain(chain, "nat", priority)
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			b.rule(chain, 0, func() {
				b.protocol(proto)
				b.destinationPort(53)
				b.redirect(dns)
			})
		}
		b.rule(chain, 0, func() { b.toLoopback4(); b.accept() })
		b.rule(chain, 0, func() { b.toLoopback6(); b.accept() })
		b.rule(chain, unix.NLM_F_ACK, func() {
			b.protocol(unix.IPPROTO_TCP)
			b.redirect(tcp)
		})
	})
	return b.b
}

// untrackBatch is
//
//	table inet ebb {
//	  chain raw {
//	    type filter hook output priority raw; policy accept;
//	    th dport 53 accept
//	    th sport { DNS, TCP } accept     # answers to what was redirected
//	    meta l4proto udp notrack
//	    ip daddr 127.0.0.0/8 notrack
//	    ip6 daddr ::1 notrack
//	  }
//	}
func untrackBatch(tcp, dns uint16) []byte {
	const chain, priority = "raw", -300 // NF_IP_PRI_RAW
	var b builder
	b.batch(func() {
		b.chain(chain, "filter", priority)
		b.rule(chain, 0, func() { b.destinationPort(53); b.accept() })
		b.rule(chain, 0, func() { b.sourcePort(dns); b.accept() })
		b.rule(chain, 0, func() { b.sourcePort(tcp); b.accept() })
		b.rule(chain, 0, func() { b.protocol(unix.IPPROTO_UDP); b.untrack() })
		b.rule(chain, 0, func() { b.toLoopback4(); b.untrack() })
		b.rule(chain, unix.NLM_F_ACK, func() { b.toLoopback6(); b.untrack() })
	})
	return b.b
}

// expression appends one step of a rule.
func (b *builder) expression(name string, data func()) {
	b.nest(unix.NFTA_LIST_ELEM, func() {
		b.text(unix.NFTA_EXPR_NAME, name)
		b.nest(unix.NFTA_EXPR_DATA, data)
	})
}

// equal ends the rule for packets whose first register does not hold value.
func (b *builder) equal(value []byte) {
	b.expression("cmp", func() {
		b.number(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		b.number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		b.nest(unix.NFTA_CMP_DATA, func() { b.attr(unix.NFTA_DATA_VALUE, value) })
	})
}

func (b *builder) meta(key uint32, value byte) {
	b.expression("meta", func() {
		b.number(unix.NFTA_META_DREG, unix.NFT_REG_1)
		b.number(unix.NFTA_META_KEY, key)
	})
	b.equal([]byte{value})
}

func (b *builder) payload(base, offset uint32, value []byte) {
	b.expression("payload", func() {
		b.number(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		b.number(unix.NFTA_PAYLOAD_BASE, base)
		b.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		b.number(unix.NFTA_PAYLOAD_LEN, uint32(len(value)))
	})
	b.equal(value)
}

func (b *builder) protocol(p byte) { b.meta(unix.NFT_META_L4PROTO, p) }

func (b *builder) sourcePort(p uint16) {
	b.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, binary.BigEndian.AppendUint16(nil, p))
}

func (b *builder) destinationPort(p uint16) {
	b.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, binary.BigEndian.AppendUint16(nil, p))
}

func (b *builder) toLoopback4() {
	b.meta(unix.NFT_META_NFPROTO, unix.NFPROTO_IPV4)
	b.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, []byte{127}) // the first byte is all that a /8 needs
}

func (b *builder) toLoopback6() {
	b.meta(unix.NFT_META_NFPROTO, unix.NFPROTO_IPV6)
	b.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, append(make([]byte, 15), 1))
}

func (b *builder) untrack() { b.expression("notrack", func() {}) }

func (b *builder) accept() { b.verdict(nfAccept) }

func (b *builder) drop() { b.verdict(nfDrop) }

func (b *builder) verdict(code uint32) {
	b.expression("immediate", func() {
		b.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		b.nest(unix.NFTA_IMMEDIATE_DATA, func() {
			b.nest(unix.NFTA_DATA_VERDICT, func() { b.number(unix.NFTA_VERDICT_CODE, code) })
		})
	})
}

func (b *builder) redirect(port uint16) {
	b.expression("immediate", func() {
		b.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1)
		b.nest(unix.NFTA_IMMEDIATE_DATA, func() { b.attr(unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint16(nil, port)) })
	})
	b.expression("redir", func() { b.number(unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFT_REG_1) })
}
