package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// The user inside, as in the outer driver.
const (
	insideUID  = 993
	insideGID  = 990
	insideHost = "169-254-100-1"
)

// Where the runtime's things are in the outer Sandbox: below its /tmp, over which the guest's own is mounted.
const (
	toolsDir  = "/tmp/.ebb"
	bundleDir = "/tmp/bundle"
	stateDir  = "/tmp/state"
)

const (
	defaultTmp = 512 << 20 // bytes of /tmp where Limits do not bound it
	shmBytes   = 64 << 20
	mostFiles  = 1024
)

// document is a bundle's config.json: https://github.com/opencontainers/runtime-spec/blob/main/config.md, as far as it is needed.
type document struct {
	Version  string  `json:"ociVersion"`
	Process  process `json:"process"`
	Root     root    `json:"root"`
	Hostname string  `json:"hostname"`
	Mounts   []mount `json:"mounts"`
	Linux    linux   `json:"linux"`
}

type process struct {
	User            user         `json:"user"`
	Args            []string     `json:"args"`
	Env             []string     `json:"env"`
	Cwd             string       `json:"cwd"`
	Capabilities    capabilities `json:"capabilities"`
	Rlimits         []rlimit     `json:"rlimits"`
	NoNewPrivileges bool         `json:"noNewPrivileges"`
}

type user struct {
	UID   int `json:"uid"`
	GID   int `json:"gid"`
	Umask int `json:"umask"`
}

// capabilities has none.
type capabilities struct {
	Bounding  []string `json:"bounding"`
	Effective []string `json:"effective"`
	Permitted []string `json:"permitted"`
}

type rlimit struct {
	Type string `json:"type"`
	Hard uint64 `json:"hard"`
	Soft uint64 `json:"soft"`
}

type root struct {
	Path     string `json:"path"`
	Readonly bool   `json:"readonly"`
}

type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

type linux struct {
	Namespaces []namespace `json:"namespaces"`
	Resources  resources   `json:"resources"`
	Seccomp    *calls      `json:"seccomp"`
}

type namespace struct {
	Type string `json:"type"`
}

type resources struct {
	Memory *memory `json:"memory,omitempty"`
}

type memory struct {
	Limit int64 `json:"limit"`
}

// config describes a guest for the runtime. Its root is the outer Sandbox's own.
func config(s sandbox.Spec, c sandbox.Code) document {
	tmp := s.Limits.TmpBytes
	if tmp <= 0 {
		tmp = defaultTmp
	}
	doc := document{
		Version: "1.0.2", Root: root{Path: "/", Readonly: true}, Hostname: insideHost,
		Process: process{
			User: user{UID: insideUID, GID: insideGID, Umask: 0o22}, Args: c.Command, Env: c.Env, Cwd: c.Dir, NoNewPrivileges: true,
			Capabilities: capabilities{Bounding: []string{}, Effective: []string{}, Permitted: []string{}},
			Rlimits:      []rlimit{{"RLIMIT_NOFILE", mostFiles, mostFiles}, {"RLIMIT_CORE", 1, 1}},
		},
		Mounts: []mount{
			{"/proc", "proc", "proc", []string{"nosuid", "nodev", "noexec"}},
			{"/dev/shm", "tmpfs", "tmpfs", []string{"nosuid", "nodev", "noexec", "mode=1777", fmt.Sprintf("size=%d", shmBytes)}},
			{"/tmp", "tmpfs", "tmpfs", []string{"nosuid", "nodev", "mode=1777", fmt.Sprintf("size=%d", tmp)}},
		},
		Linux: linux{Namespaces: []namespace{{"pid"}, {"mount"}, {"ipc"}, {"uts"}}, Seccomp: filter()},
	}
	for _, m := range c.Mounts {
		if strings.HasPrefix(m.Target, "/tmp/") { // the others are in the root already
			doc.Mounts = append(doc.Mounts, mount{m.Target, "bind", m.Target, []string{"rbind", "ro", "nosuid", "nodev"}})
		}
	}
	if doc.Process.Env == nil {
		doc.Process.Env = []string{}
	}
	if doc.Process.Cwd == "" {
		doc.Process.Cwd = "/"
	}
	if n := s.Limits.Processes; n > 0 {
		doc.Process.Rlimits = append(doc.Process.Rlimits, rlimit{"RLIMIT_NPROC", uint64(n), uint64(n)})
	}
	if n := s.Limits.MemoryBytes; n > 0 {
		doc.Linux.Resources.Memory = &memory{n} // what the guest is told that it has
	}
	return doc
}

// flags are the runtime's. Its network is the outer Sandbox's namespace, which has only what the outer driver lets in.
func flags(s sandbox.Spec) []string {
	all := []string{
		toolsDir + "/runsc", "--root=" + stateDir, "--log=/dev/null", "--rootless", "--ignore-cgroups", "--network=host", "--overlay2=none",
		"--host-settings=ignore", "--gofer-network-namespace=new", "--oci-seccomp",
	}
	all = append(all, "run", "--bundle="+bundleDir)
	if s.Transport == sandbox.Stream {
		all = append(all, "--pass-fd=3:3")
	}
	return append(all, s.ID)
}

// pieceSize is the length of a variable that holds a part of the bundle: the kernel takes 128 KiB.
const pieceSize = 100 << 10

// tend runs the runtime and passes a SIGTERM on to the guest's processes, which the runtime does not do by itself. A signal ends wait before its
// time, and a child may be known to have ended without having been waited for.
const tend = `
id=$1; shift
trap '` + toolsDir + `/runsc --root=` + stateDir + ` --log=/dev/null --rootless kill --all "$id" TERM >/dev/null 2>&1' TERM
env -i "$@" & run=$!
while wait $run; status=$?; kill -0 $run 2>/dev/null; do :; done
wait $run 2>/dev/null; again=$?
[ $again = 127 ] || status=$again
exit $status`

// wrap gives the code that has the runtime run code. A shell makes the bundle, so that the guest's environment is in no file of the host; it gets
// it in variables, which nobody else can read either.
func wrap(runtime string, s sandbox.Spec, c sandbox.Code) sandbox.Code {
	text, _ := json.Marshal(config(s, c)) // of strings and numbers alone: cannot fail
	var env, pieces []string
	for i := 0; len(text) > 0; i++ {
		n := min(pieceSize, len(text))
		name := fmt.Sprintf("ebb%d", i)
		env, pieces = append(env, name+"="+string(text[:n])), append(pieces, `"$`+name+`"`)
		text = text[n:]
	}
	script := fmt.Sprintf(`mkdir %s %s && printf %%s %s >%s/config.json || exit 125%s`, bundleDir, stateDir, strings.Join(pieces, " "), bundleDir, tend)
	out := sandbox.Code{Command: append([]string{"/bin/sh", "-c", script, "sh", s.ID}, flags(s)...), Env: append(env, "PATH=/usr/bin:/bin"), Dir: "/"}
	out.Mounts = append(out.Mounts, sandbox.Mount{Source: runtime, Target: toolsDir + "/runsc"})
	// Newer ones come with further programs: https://gvisor.dev/docs/user_guide/install/
	if beside := filepath.Join(filepath.Dir(runtime), "gvisor-bin"); isDir(beside) {
		out.Mounts = append(out.Mounts, sandbox.Mount{Source: beside, Target: toolsDir + "/gvisor-bin"})
	}
	out.Mounts = append(out.Mounts, c.Mounts...)
	return out
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
