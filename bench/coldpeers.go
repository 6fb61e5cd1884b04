package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// wrapper makes the command that runs code its own way, and what cleans up behind it.
type wrapper func(c sandbox.Code, tr sandbox.Transport) (cmd *exec.Cmd, clean func(), err error)

// spawned starts a guest without ebb's driver: the same code, bootstrap and protocol.
func (b *bench) spawned(ctx context.Context, wrap wrapper, proto guest.Protocol, u *guest.Unit) (p coldParts, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tr := proto.Transport(u)
	t0 := time.Now()
	line, addr, theirs, err := socket(tr)
	if err != nil {
		return p, err
	}
	defer line.Close()
	code, err := proto.Code(u, addr)
	if err != nil {
		return p, err
	}
	cmd, clean, err := wrap(code, tr)
	if err != nil {
		return p, err
	}
	if clean != nil {
		defer clean()
	}
	if theirs != nil {
		cmd.ExtraFiles = []*os.File{theirs}
	}
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return p, err
	}
	ended := make(chan struct{})
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		<-ended
		if err != nil && said.Len() > 0 {
			err = fmt.Errorf("%w: %.300s", err, strings.TrimSpace(said.String()))
		}
	}()
	go func() {
		_ = cmd.Wait()
		close(ended)
		cancel()
	}()
	if theirs != nil {
		_ = theirs.Close() // the guest has it
	}
	p.Sandbox = time.Since(t0).Seconds()
	return p, talk(ctx, proto, line, u, &p)
}

// wire is the host's side of a guest's line.
type wire struct {
	stream net.Conn
	ln     net.Listener
}

func (w wire) Stream() net.Conn       { return w.stream }
func (w wire) Listener() net.Listener { return w.ln }
func (w wire) Dial(context.Context) (net.Conn, error) {
	return nil, errors.New("no handler of the benchmarks listens")
}

func (w wire) Beside() <-chan sandbox.End { return nil }
func (w wire) Proceed() error             { return nil }

func (w wire) Close() error {
	if w.ln != nil {
		return w.ln.Close()
	}
	return w.stream.Close()
}

// socket makes a line, and for a stream the guest's end.
func socket(tr sandbox.Transport) (sandbox.Conn, string, *os.File, error) {
	if tr == sandbox.Listen {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", nil, err
		}
		return wire{ln: ln}, ln.Addr().String(), nil, nil
	}
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, "", nil, err
	}
	host := os.NewFile(uintptr(fds[0]), "host")
	defer host.Close()
	theirs := os.NewFile(uintptr(fds[1]), "guest")
	c, err := net.FileConn(host)
	if err != nil {
		_ = theirs.Close()
		return nil, "", nil, err
	}
	return wire{stream: c}, "", theirs, nil
}

func bare(c sandbox.Code, _ sandbox.Transport) (*exec.Cmd, func(), error) {
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	return cmd, nil, nil
}

// systemLinks and systemFolders are what of the host's root is shown inside.
func systemRoot(link func(path, to string), folder func(path string)) {
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ssl", "/etc/alternatives"} {
		if to, err := os.Readlink(dir); err == nil {
			link(dir, to)
		} else if _, err := os.Stat(dir); err == nil {
			folder(dir)
		}
	}
}

// bwrap runs code in the namespaces that ebb gives it. A guest that dials its host stays in the host's network: bubblewrap would leave it
// alone in one of its own.
func (b *bench) bwrap(c sandbox.Code, tr sandbox.Transport) (*exec.Cmd, func(), error) {
	program, err := exec.LookPath("bwrap")
	if err != nil {
		return nil, nil, err
	}
	args := []string{"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--uid", "993", "--gid", "990", "--hostname", "bench",
		"--cap-drop", "ALL", "--die-with-parent", "--clearenv", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"}
	if tr == sandbox.Stream {
		args = append(args, "--unshare-net")
	}
	systemRoot(func(path, to string) { args = append(args, "--symlink", to, path) }, func(path string) { args = append(args, "--ro-bind", path, path) })
	args = append(args, "--ro-bind", b.etc()+"/passwd", "/etc/passwd", "--ro-bind", b.etc()+"/group", "/etc/group")
	for _, m := range c.Mounts {
		args = append(args, "--ro-bind", m.Source, m.Target)
	}
	for _, kv := range c.Env {
		k, v, _ := strings.Cut(kv, "=")
		args = append(args, "--setenv", k, v)
	}
	if c.Dir != "" {
		args = append(args, "--chdir", c.Dir)
	}
	return exec.Command(program, append(append(args, "--"), c.Command...)...), nil, nil
}

// etc holds the files that name the user inside, which Node's SDK wants to know.
func (b *bench) etc() string { return filepath.Join(b.work, "etc") }

func (b *bench) writeEtc() error {
	if err := os.Mkdir(b.etc(), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(b.etc(), "passwd"), []byte("sbx_user1051:x:993:990::/tmp:/sbin/nologin\n"), 0o644),
		os.WriteFile(filepath.Join(b.etc(), "group"), []byte("sbx_user1051:x:990:\n"), 0o644))
}

// crun runs code as an OCI container with the same namespaces, but without cgroups where it refuses those of this machine.
func (b *bench) crun(c sandbox.Code, tr sandbox.Transport) (*exec.Cmd, func(), error) {
	program, err := exec.LookPath("crun")
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(b.work, "oci-")
	if err != nil {
		return nil, nil, err
	}
	name := filepath.Base(dir)
	clean := func() {
		_ = exec.Command(program, "--cgroup-manager="+b.crunGroups(), "delete", "--force", name).Run() // it may be gone
		_ = os.RemoveAll(dir)
	}
	if err := writeBundle(dir, c, tr); err != nil {
		clean()
		return nil, nil, err
	}
	args := []string{"--cgroup-manager=" + b.crunGroups(), "run", "--bundle", dir}
	if tr == sandbox.Stream {
		args = append(args, "--preserve-fds", "1")
	}
	return exec.Command(program, append(args, name)...), clean, nil
}

// crunGroups is crun's way with cgroups: its own where there is only version 2.
func (b *bench) crunGroups() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "cgroupfs"
	}
	return "disabled"
}

// writeBundle writes an OCI runtime bundle, runtime-spec 1.0 "Filesystem Bundle".
func writeBundle(dir string, c sandbox.Code, tr sandbox.Transport) error {
	type m = map[string]any
	root := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	tmpfs := func(path string, options ...string) m {
		return m{"destination": path, "type": "tmpfs", "source": "tmpfs", "options": append([]string{"nosuid"}, options...)}
	}
	mounts := []m{
		{"destination": "/proc", "type": "proc", "source": "proc"}, tmpfs("/dev", "mode=755"), tmpfs("/tmp", "nodev", "mode=1777", "size=512m"),
	}
	bind := func(from, to string) {
		mounts = append(mounts, m{"destination": to, "type": "bind", "source": from, "options": []string{"rbind", "ro", "nosuid", "nodev"}})
	}
	var failed error
	systemRoot(func(path, to string) { failed = errors.Join(failed, os.Symlink(to, filepath.Join(root, path))) }, func(path string) { bind(path, path) })
	for _, x := range c.Mounts {
		bind(x.Source, x.Target)
	}
	namespaces := []m{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	if tr == sandbox.Stream {
		namespaces = append(namespaces, m{"type": "network"})
	}
	cwd := c.Dir
	if cwd == "" {
		cwd = "/"
	}
	text, err := json.Marshal(m{
		"ociVersion": "1.0.2", "root": m{"path": "rootfs", "readonly": true}, "hostname": "bench", "mounts": mounts,
		"process": m{"user": m{"uid": 993, "gid": 990}, "args": c.Command, "env": c.Env, "cwd": cwd, "noNewPrivileges": true, "capabilities": m{}},
		"linux":   m{"namespaces": namespaces},
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
}
