package confine

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// redirect adds to a trial what egress needs of nf_tables: a table with a chain of type nat at the output hook, and in it a rule that redirects.
// All is one batch, which is worked on while it is sent; the first answer is an error, or the last message's success.
func redirect(t *trial) {
	var batch []byte
	batch = message(batch, unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	const nft, create = unix.NFNL_SUBSYS_NFTABLES << 8, unix.NLM_F_CREATE
	table := attribute(nil, unix.NFTA_TABLE_NAME, []byte("ebb\x00"))
	batch = message(batch, nft|unix.NFT_MSG_NEWTABLE, create, unix.AF_INET, 0, table)

	hook := attribute(nil, unix.NFTA_HOOK_HOOKNUM, binary.BigEndian.AppendUint32(nil, unix.NF_INET_LOCAL_OUT))
	hook = attribute(hook, unix.NFTA_HOOK_PRIORITY, binary.BigEndian.AppendUint32(nil, ^uint32(99))) // -100: NF_IP_PRI_NAT_DST
	chain := attribute(nil, unix.NFTA_CHAIN_TABLE, []byte("ebb\x00"))
	chain = attribute(chain, unix.NFTA_CHAIN_NAME, []byte("out\x00"))
	chain = attribute(chain, unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, hook)
	chain = attribute(chain, unix.NFTA_CHAIN_TYPE, []byte("nat\x00"))
	batch = message(batch, nft|unix.NFT_MSG_NEWCHAIN, create, unix.AF_INET, 0, chain)

	expr := attribute(nil, unix.NFTA_EXPR_NAME, []byte("redir\x00"))
	expr = attribute(nil, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, expr)
	rule := attribute(nil, unix.NFTA_RULE_TABLE, []byte("ebb\x00"))
	rule = attribute(rule, unix.NFTA_RULE_CHAIN, []byte("out\x00"))
	rule = attribute(rule, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, expr)
	batch = message(batch, nft|unix.NFT_MSG_NEWRULE, create|unix.NLM_F_APPEND|unix.NLM_F_ACK, unix.AF_INET, 0, rule)
	batch = message(batch, unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)

	buf := make([]byte, 4096)
	t.call("socket for nf_tables", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	t.call("send to nf_tables", unix.SYS_SENDTO, opened{}, batch, len(batch), 0, 0, 0)
	t.call("read from nf_tables", unix.SYS_RECVFROM, opened{}, buf, len(buf), unix.MSG_DONTWAIT, 0, 0)
	last := &t.steps[len(t.steps)-1]
	last.answer = (*int32)(unsafe.Pointer(&buf[16])) // struct nlmsgerr behind struct nlmsghdr
}

// message appends a netlink message of netfilter's: linux/netlink.h, nfnetlink.h. The kernel answers to what went wrong, and to what asks for it.
func message(b []byte, kind, flags uint16, family uint8, res uint16, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(20+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8)...) // sequence, port
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, res)
	return append(b, body...)
}

// attribute appends an attribute, padded to 4 bytes.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(value)%4)%4)...)
}
