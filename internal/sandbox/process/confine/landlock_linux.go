package confine

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// leastLandlock is the first version that can be told to let files be renamed and linked between folders (LANDLOCK_ACCESS_FS_REFER). The first
// of all refuses it always, which breaks package managers and version control in /tmp: better none.
const leastLandlock = 2

// RuleFD is where in [Rule].Attr the descriptor belongs: 32 bits, little endian.
const RuleFD = 8

// Rule lets something be done beneath a path.
type Rule struct {
	// Path is to be opened with O_PATH|O_CLOEXEC where the Sandbox's mounts are in place. Where there is nothing (ENOENT), the rule is left out.
	Path string
	// Attr is a struct landlock_path_beneath_attr, packed: the permissions in 8 bytes, then parent_fd, -1 until filled in.
	Attr []byte
}

const (
	landRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

	// No devices can be made, anywhere.
	landMake = unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_REFER
	landDevice = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	landWrite = landRead | landMake | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

type allowed struct {
	path   string
	access uint64
}

// allowedBeneath are the rules. Nothing in /proc can be written: what is useful there is another process's of the same user, as `mem`.
var allowedBeneath = []allowed{
	{"/", landRead},
	{"/tmp", landWrite},
	{"/dev/shm", landWrite},
	{"/dev/null", landDevice},
	{"/dev/zero", landDevice},
	{"/dev/full", landDevice},
	{"/dev/random", landDevice},
	{"/dev/urandom", landDevice},
	{"/dev/tty", landDevice},
	{"/dev/ptmx", landDevice},
	{"/dev/pts", landDevice | unix.LANDLOCK_ACCESS_FS_READ_DIR},
}

// handled is what a version of Landlock can refuse to do with files.
func handled(abi int) uint64 {
	all := uint64(landWrite | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK)
	if abi < 3 {
		all &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

// Landlock is what confines files on a kernel with a version of Landlock, as [LandlockABI] finds it: a struct landlock_ruleset_attr in the size
// that the version knows, and the rules (LANDLOCK_RULE_PATH_BENEATH, flags 0) to add to the ruleset made of it. Everything can be read and
// executed as the files' modes say; only /tmp, /dev/shm, what lies beneath the writable paths, and some devices can be written. From version 6 on, abstract UNIX sockets and processes outside are out of
// reach. TCP is not restricted: the network namespace and ebb's egress do that. With a version that is too old, all is nil.
//
// It is defence in depth behind a root that is mounted read-only: a mount that is writable by mistake, or left by a hole in the kernel's mounts, is
// still not written to. The processes cannot change mounts either, whatever capabilities they come by. What Landlock does not know of stays
// with the mounts and modes: chmod, chown, times, extended attributes, and descriptors opened before.
func Landlock(abi int, writable ...string) (ruleset []byte, rules []Rule) {
	if abi < leastLandlock {
		return nil, nil
	}
	for _, r := range allowedBeneath {
		rules = append(rules, newRule(abi, r.path, r.access))
	}
	for _, path := range writable {
		rules = append(rules, newRule(abi, path, landWrite))
	}
	return rulesetFor(abi), rules
}

// terminals are the host's own where it shows them.
var terminals = map[string]bool{"/dev/tty": true, "/dev/ptmx": true}

// LandlockFiles is what confines files as [Landlock] does, where there are no mounts that do: what is in readable can be read and executed,
// what is in writable can be written too, and nothing else is there but a few devices and what /proc shows. A name in readable that does not
// end with a slash is that of a file. Processes outside cannot be looked into: their entries in /proc are as closed as Yama makes them.
func LandlockFiles(abi int, readable, writable []string) (ruleset []byte, rules []Rule) {
	if abi < leastLandlock {
		return nil, nil
	}
	for _, r := range allowedBeneath {
		if r.access == landDevice && !terminals[r.path] {
			rules = append(rules, newRule(abi, r.path, r.access))
		}
	}
	rules = append(rules, newRule(abi, "/proc", landRead))
	for _, path := range readable {
		access := uint64(landRead)
		if !strings.HasSuffix(path, "/") {
			access = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
		}
		rules = append(rules, newRule(abi, path, access))
	}
	for _, path := range writable {
		rules = append(rules, newRule(abi, path, landWrite))
	}
	return rulesetFor(abi), rules
}

func newRule(abi int, path string, access uint64) Rule {
	attr := binary.LittleEndian.AppendUint64(nil, access&handled(abi))
	return Rule{Path: path, Attr: binary.LittleEndian.AppendUint32(attr, ^uint32(0))}
}

// rulesetFor is a struct landlock_ruleset_attr in the size that a version knows.
func rulesetFor(abi int) []byte {
	ruleset := binary.LittleEndian.AppendUint64(nil, handled(abi)) // handled_access_fs
	if abi >= 4 {
		ruleset = binary.LittleEndian.AppendUint64(ruleset, 0) // handled_access_net
	}
	if abi >= 6 {
		ruleset = binary.LittleEndian.AppendUint64(ruleset, unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET|unix.LANDLOCK_SCOPE_SIGNAL)
	}
	return ruleset
}

// LandlockABI is the version of the kernel's Landlock, 0 where there is none or it is switched off.
func LandlockABI() int {
	v, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}
