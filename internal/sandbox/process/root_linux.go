package process

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// A Sandbox's root is a small tmpfs that becomes read-only, with the system's programs and libraries, the few files of /etc that programs
// look for, and what Code.Mounts names. Nothing of /home, /root, /var, /opt, /srv, /sys or another Sandbox is there.

const (
	rootBytes = 1 << 20  // of the tmpfs that holds mount points
	shmBytes  = 64 << 20 // of /dev/shm, as containers have it
	// defaultTmp bounds /tmp where Limits do not: Lambda's ephemeral storage, in bytes.
	defaultTmp = 512 << 20
)

// systemDirs are the folders of programs and libraries; those that the host has as symbolic links are such inside too.
var systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"}

// configFiles are what is shown of the host's /etc, as patterns: what the linker, TLS, time and fonts need, which system it is, what
// programs of /usr do not work without, and no secrets.
var configFiles = []string{
	"/etc/alternatives", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/fonts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
	"/etc/localtime", "/etc/mime.types", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf",
	"/etc/protocols", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem",
	// Native packages choose what they load by the system's name, as Prisma's engines do.
	"/etc/os-release", "/etc/alpine-release", "/etc/debian_version", "/etc/redhat-release", "/etc/system-release",
	// Debian keeps parts of these programs here, with links from /usr: Java has no class of java.security without its own.
	"/etc/java-*", "/etc/ImageMagick-*", "/etc/ghostscript", "/etc/libreoffice", "/etc/perl",
}

// devices are the device files that are shown.
var devices = []string{"null", "zero", "full", "random", "urandom"}

// system is what every Sandbox of a Driver shows of the host, found once.
type system struct {
	links  [][2]string // where, to what
	mounts []sandbox.Mount
}

func findSystem() system {
	var s system
	for _, dir := range systemDirs {
		info, err := os.Lstat(dir)
		if err != nil {
			continue
		}
		if to, err := os.Readlink(dir); err == nil && info.Mode()&os.ModeSymlink != 0 {
			s.links = append(s.links, [2]string{dir, to})
		} else if info.IsDir() {
			s.mounts = append(s.mounts, sandbox.Mount{Source: dir, Target: dir})
		}
	}
	for _, pattern := range configFiles {
		files, _ := filepath.Glob(pattern) // sorted, and only what is there
		for _, file := range files {
			s.config(file)
		}
	}
	return s
}

// bundles are where programs look for the certificates that they trust.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// trust shows a file in place of the system's bundles of certificates, and where the system has none at the usual place.
func (s *system) trust(file string) {
	var there []string
	for _, b := range bundles {
		real, err := filepath.EvalSymlinks(b)
		if err != nil || strings.HasPrefix(real, "/usr/") || slices.Contains(there, real) { // what is a link to another is that one
			continue
		}
		there = append(there, real)
		s.mounts = slices.DeleteFunc(s.mounts, func(m sandbox.Mount) bool { return m.Target == b })
		s.mounts = append(s.mounts, sandbox.Mount{Source: file, Target: b})
	}
	if len(there) == 0 && !isFolder("/etc/ssl/certs") {
		s.mounts = append(s.mounts, sandbox.Mount{Source: file, Target: bundles[0]})
	}
}

// stores are where the system's Java looks for the certificates that it trusts; they may be links to each other.
var stores = []string{
	"/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts", "/etc/pki/java/cacerts", "/usr/lib/jvm/*/lib/security/cacerts", "/usr/lib/jvm/*/jre/lib/security/cacerts",
}

// trustJava shows a file in place of the stores of the system's Java.
func (s *system) trustJava(file string) {
	var there []string
	for _, pattern := range stores {
		found, _ := filepath.Glob(pattern)
		for _, name := range found {
			real, err := filepath.EvalSymlinks(name)
			if err != nil || slices.Contains(there, real) || !s.shows(real) {
				continue
			}
			there = append(there, real)
			s.mounts = append(s.mounts, sandbox.Mount{Source: file, Target: real})
		}
	}
}

// shows says whether a file of the host is within what is mounted at its own path.
func (s *system) shows(file string) bool {
	return slices.ContainsFunc(s.mounts, func(m sandbox.Mount) bool { return m.Source == m.Target && strings.HasPrefix(file, m.Source+"/") })
}

func (s *system) config(file string) {
	real, err := filepath.EvalSymlinks(file)
	switch {
	case err != nil: // a link to nothing
	case real != file && strings.HasPrefix(real, "/usr/"):
		s.links = append(s.links, [2]string{file, real})
	default:
		s.mounts = append(s.mounts, sandbox.Mount{Source: real, Target: file})
	}
}

// rootBuilder appends the steps that make a root. Its paths are relative to the folder that becomes the root, where the program is.
type rootBuilder struct {
	*helper.List
	made map[string]bool // folders and files
	bare []string        // targets of mounts: what lies beneath is theirs
}

func (b *rootBuilder) rel(path string) helper.Arg { return b.Text(relative(path)) }

func relative(path string) string {
	if path = strings.TrimPrefix(filepath.Clean(path), "/"); path == "" {
		return "."
	}
	return path
}

// folder makes a folder and those above it.
func (b *rootBuilder) folder(path string) {
	path = filepath.Clean(path)
	if path == "/" || path == "." || b.made[path] {
		return
	}
	b.folder(filepath.Dir(path))
	b.made[path] = true
	b.Call("make folder "+path, unix.SYS_MKDIRAT, helper.Int(at), b.rel(path), helper.Int(0o755))
}

// at is AT_FDCWD as the kernel takes it.
const at = ^uint64(99)

// file makes an empty file to mount on.
func (b *rootBuilder) file(path string) {
	if b.made[path] {
		return
	}
	b.folder(filepath.Dir(path))
	b.made[path] = true
	fd := b.Call("make file "+path, unix.SYS_OPENAT, helper.Int(at), b.rel(path), helper.Int(unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC), helper.Int(0o644))
	b.Call("close", unix.SYS_CLOSE, fd.Result())
}

func (b *rootBuilder) link(path, to string) {
	b.folder(filepath.Dir(path))
	b.Call("link "+path, unix.SYS_SYMLINKAT, b.Text(to), helper.Int(at), b.rel(path))
}

func (b *rootBuilder) mount(what, kind, path string, flags uintptr, options string) {
	b.Call("mount "+what, unix.SYS_MOUNT, b.Text(kind), b.rel(path), b.Text(kind), helper.Int(flags), b.Text(options))
}

// show binds a file or folder of the host, without rights beyond reading and running, and writing where that is asked for.
func (b *rootBuilder) show(m sandbox.Mount, folder bool, without uint64) {
	switch beneath := slices.ContainsFunc(b.bare, func(dir string) bool { return strings.HasPrefix(m.Target, dir+"/") }); {
	case beneath: // it is there
	case folder:
		b.folder(m.Target)
	default:
		b.file(m.Target)
	}
	if folder {
		b.bare = append(b.bare, filepath.Clean(m.Target))
	}
	what := "show " + m.Source + " at " + m.Target
	b.Call(what, unix.SYS_MOUNT, b.Text(m.Source), b.rel(m.Target), helper.Int(0), helper.Int(unix.MS_BIND|unix.MS_REC), helper.Int(0))
	attr := b.Bytes(words(without, 0, 0, 0)) // struct mount_attr: set, clear, propagation, user namespace
	b.Call(what+" restricted", unix.SYS_MOUNT_SETATTR, helper.Int(at), b.rel(m.Target), helper.Int(unix.AT_RECURSIVE), attr, helper.Int(32))
}

func words(all ...uint64) []byte {
	var b []byte
	for _, v := range all {
		b = helper.Int(v).Append(b)
	}
	return b
}

// quiet is how file systems are mounted that hold a Sandbox's own files.
const quiet = unix.MS_NOSUID | unix.MS_NODEV

// root appends everything up to the new root, in which the program then is. owner is the uid and gid of /tmp as this namespace sees them.
func (s system) root(l *helper.List, staging, etc string, mounts []sandbox.Mount, tmpBytes int64, owner string) {
	l.Call("make mounts private", unix.SYS_MOUNT, helper.Int(0), l.Text("/"), helper.Int(0), helper.Int(unix.MS_REC|unix.MS_PRIVATE), helper.Int(0))
	s.build(l, staging, etc, mounts, tmpBytes, owner, true)
	l.Call("change the root", unix.SYS_PIVOT_ROOT, l.Text("."), l.Text("."))
	l.Call("leave the host's root", unix.SYS_UMOUNT2, l.Text("."), helper.Int(unix.MNT_DETACH))
	l.Call("enter the root", unix.SYS_CHDIR, l.Text("/"))
}

// build appends what makes a root in the staging folder, which is the working directory then.
func (s system) build(l *helper.List, staging, etc string, mounts []sandbox.Mount, tmpBytes int64, owner string, proc bool) {
	b := &rootBuilder{List: l, made: map[string]bool{}}
	l.Call("mount the root", unix.SYS_MOUNT, l.Text("ebb"), l.Text(staging), l.Text("tmpfs"), helper.Int(quiet), l.Text(sized(rootBytes, "mode=755")))
	l.Call("enter the root", unix.SYS_CHDIR, l.Text(staging))
	for _, link := range s.links {
		b.link(link[0], link[1])
	}
	entries, _ := os.ReadDir(etc)
	for _, e := range entries {
		b.show(sandbox.Mount{Source: filepath.Join(etc, e.Name()), Target: "/etc/" + e.Name()}, false, readOnly)
	}
	for _, m := range s.mounts {
		b.show(m, isFolder(m.Source), readOnly)
	}
	for _, d := range devices {
		b.show(sandbox.Mount{Source: "/dev/" + d, Target: "/dev/" + d}, false, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	}
	for path, to := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"} {
		b.link(path, to)
	}
	for _, dir := range []string{"/dev/shm", "/home", "/proc", "/tmp", "/var"} {
		b.folder(dir)
	}
	b.mount("/dev/shm", "tmpfs", "/dev/shm", quiet|unix.MS_NOEXEC, sized(shmBytes, "mode=1777", owner))
	if proc {
		b.mount("/proc", "proc", "/proc", quiet|unix.MS_NOEXEC, "")
	}
	if tmpBytes <= 0 {
		tmpBytes = defaultTmp
	}
	b.mount("/tmp", "tmpfs", "/tmp", quiet, sized(tmpBytes, "mode=1777", owner))
	b.link("/var/tmp", "/tmp")
	sorted := slices.SortedFunc(slices.Values(mounts), func(x, y sandbox.Mount) int { return strings.Compare(x.Target, y.Target) })
	for _, m := range sorted {
		if rest, ok := strings.CutPrefix(m.Target, "/var/tmp/"); ok {
			m.Target = "/tmp/" + rest // through the link it would be the host's, whose root this still is
		}
		if m.Source == "" { // mounted on later
			b.folder(m.Target)
			continue
		}
		without := uint64(readOnly)
		if m.Writable {
			without &^= unix.MOUNT_ATTR_RDONLY
		}
		b.show(m, isFolder(m.Source), without)
	}
	l.Call("make the root read-only", unix.SYS_MOUNT, helper.Int(0), l.Text("."), helper.Int(0),
		helper.Int(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|quiet), helper.Int(0))
}

// readOnly are the restrictions of what belongs to the host.
const readOnly = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// hidden explains a program that cannot run because the interpreter of its first line is on the host, but not in the Sandbox.
func (b *birth) hidden(program string, failed error) error {
	if !errors.Is(failed, unix.ENOENT) {
		return nil
	}
	f, err := os.Open(program)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 256) // as much as the kernel reads
	n, _ := io.ReadFull(f, head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	rest, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return nil
	}
	if _, err := os.Stat(words[0]); err != nil {
		return nil // nor on the host
	}
	return errs.New(errs.Failed, "run %s: its interpreter %s is on this machine, but not inside the sandbox", program, words[0]).
		WithHint("Name one below /usr, or package it with the code or a layer; --isolation none runs functions without a sandbox.")
}

func sized(bytes int64, options ...string) string {
	return strings.Join(append([]string{"size=" + strconv.FormatInt(bytes, 10), "nr_inodes=" + strconv.FormatInt(max(1024, bytes/4096), 10)}, options...), ",")
}
