package lambda

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// reserved are the variables that a function's configuration cannot set: Lambda guide, "Defined runtime environment variables".
var reserved = map[string]bool{
	"_HANDLER": true, "_X_AMZN_TRACE_ID": true,
	"AWS_DEFAULT_REGION": true, "AWS_REGION": true, "AWS_EXECUTION_ENV": true,
	"AWS_LAMBDA_FUNCTION_NAME": true, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": true, "AWS_LAMBDA_FUNCTION_VERSION": true,
	"AWS_LAMBDA_INITIALIZATION_TYPE": true, "AWS_LAMBDA_LOG_GROUP_NAME": true, "AWS_LAMBDA_LOG_STREAM_NAME": true,
	"AWS_ACCESS_KEY": true, "AWS_ACCESS_KEY_ID": true, "AWS_SECRET_ACCESS_KEY": true, "AWS_SESSION_TOKEN": true,
	"AWS_LAMBDA_RUNTIME_API": true, "LAMBDA_TASK_ROOT": true, "LAMBDA_RUNTIME_DIR": true, "_LAMBDA_SERVER_PORT": true,
}

// environment is what a function finds: what Lambda sets, then the user's variables. Nothing comes from the host's own.
func (p *Protocol) environment(u *guest.Unit, addr string) []string {
	f := familyOf(u.Runtime)
	initType := "on-demand"
	if u.Provisioned {
		initType = "provisioned-concurrency"
	}
	env := []string{
		"AWS_REGION=" + u.Region,
		"AWS_DEFAULT_REGION=" + u.Region,
		"AWS_LAMBDA_FUNCTION_NAME=" + u.Function,
		"AWS_LAMBDA_FUNCTION_VERSION=" + u.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + strconv.Itoa(u.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE=" + initType,
		"AWS_LAMBDA_LOG_GROUP_NAME=" + u.LogGroup,
		"AWS_LAMBDA_LOG_STREAM_NAME=" + u.LogStream + u.Instance,
		"LAMBDA_TASK_ROOT=" + inside(u, u.Root),
		"LAMBDA_RUNTIME_DIR=" + p.bootstrap(u, ""),
		"_HANDLER=" + handlerPath(u),
		"_X_AMZN_TRACE_ID=",
	}
	c := u.Credentials
	if c.AccessKey == "" { // SDKs look for credentials in slow places where there are none
		c = guest.Credentials{AccessKey: "AKIAEBBEBBEBBEBBEBB0", Secret: "ebb", Token: "ebb"}
	}
	env = append(env, "AWS_ACCESS_KEY_ID="+c.AccessKey, "AWS_SECRET_ACCESS_KEY="+c.Secret, "AWS_SESSION_TOKEN="+c.Token)
	if f != native {
		env = append(env, "AWS_EXECUTION_ENV=AWS_Lambda_"+u.Runtime)
	}
	if addr != "" {
		if _, port, err := net.SplitHostPort(addr); err == nil && p.Transport(u) == sandbox.Dial {
			env = append(env, "_LAMBDA_SERVER_PORT="+port)
		} else {
			env = append(env, "AWS_LAMBDA_RUNTIME_API="+addr)
		}
	}
	at := map[string]int{}
	add := func(name, value string) {
		if i, ok := at[name]; ok {
			env[i] = name + "=" + value
			return
		}
		at[name] = len(env)
		env = append(env, name+"="+value)
	}
	add("TZ", ":UTC")
	add("LANG", "en_US.UTF-8")
	add("PATH", searchPath(u))
	add("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR")
	add("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:2000")
	if u.Trust && u.Mounts {
		for _, kv := range trusted {
			name, value, _ := strings.Cut(kv, "=")
			add(name, value)
		}
	}
	if libs := libraries(u); libs != "" {
		add("LD_LIBRARY_PATH", libs)
	}
	switch f {
	case node:
		add("NODE_PATH", nodePath(u, ""))
	case python:
		if u.Supplied != "" {
			add("PYTHONPATH", inside(u, filepath.Join(u.Supplied, "python")))
		}
	case native, goOne:
		if u.Trust && u.Mounts && bringsJava(u) {
			add(javaOptions, strings.TrimSpace("-Djavax.net.ssl.trustStore="+sandbox.StoreFile+" "+variable(u, javaOptions)))
		}
		// A Go program that believes in more processors than its share of memory buys wakes threads for nothing, several
		// times an Invocation with the stock client.
		add("GOMAXPROCS", strconv.Itoa(processorsFor(u.MemoryMB)))
	}
	for _, kv := range u.Env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || reserved[name] {
			continue
		}
		switch _, ours := at[name]; {
		case name == "NODE_PATH" && f == node:
			value = nodePath(u, value)
		case name == javaOptions && ours:
			continue
		}
		add(name, value)
	}
	if u.Capture != nil {
		return p.capturing(u, env)
	}
	return env
}

// trusted say where the certificates are that programs are to trust, to those that do not look where the system has them: Node.js, whose
// variable adds to its own, and botocore, requests and OpenSSL of Python's packages, whose replace them.
var trusted = []string{
	"NODE_EXTRA_CA_CERTS=" + sandbox.CAFile, "AWS_CA_BUNDLE=" + sandbox.RootsFile, "SSL_CERT_FILE=" + sandbox.RootsFile, "REQUESTS_CA_BUNDLE=" + sandbox.RootsFile,
}

// javaOptions are what every JVM begins with, in front of its command's own options. It says on standard error that it has read them, as it does of the
// variable JDK_JAVA_OPTIONS, which the program java of Java 9 and later alone knows, and not what jlink and native launchers make.
const javaOptions = "JAVA_TOOL_OPTIONS"

// bringsJava says whether a JVM with certificates of its own is in the code or the layers. Those of the system's Java are ebb's in a Sandbox.
func bringsJava(u *guest.Unit) bool {
	for _, dir := range folders(u) {
		for _, at := range []string{"", "*", "*/*"} {
			for _, jre := range []string{"", "jre"} {
				if found, _ := filepath.Glob(filepath.Join(dir, at, jre, "lib/security/cacerts")); len(found) > 0 {
					return true
				}
			}
		}
	}
	return false
}

// processorsFor is the share of processors that comes with memory, rounded up. AWS: "Configure Lambda function memory": "At 1,769 MB, a
// function has the equivalent of one vCPU".
func processorsFor(memoryMB int) int {
	const perProcessor = 1769
	return max(1, (memoryMB+perProcessor-1)/perProcessor)
}

// searchPath is Lambda's PATH with the interpreter's folder in the place of Lambda's own, and the layers' bin in that of /opt/bin.
func searchPath(u *guest.Unit) string {
	var dirs []string
	if len(u.Interpreter) > 0 {
		dirs = append(dirs, filepath.Dir(u.Interpreter[0]))
	}
	dirs = append(dirs, "/usr/local/bin", "/usr/bin", "/bin")
	if u.Layers != "" {
		dirs = append(dirs, inside(u, filepath.Join(u.Layers, "bin")))
	}
	return joinPath(dirs)
}

// libraries is where the dynamic linker looks first; empty where the code brings no libraries, as a search costs time.
func libraries(u *guest.Unit) string {
	var dirs []string
	for _, d := range folders(u) {
		if lib := filepath.Join(d, "lib"); isDir(lib) {
			dirs = append(dirs, inside(u, lib))
		}
	}
	return joinPath(dirs)
}

// nodePath is where packages are looked for after the project's own: in the user's folders, then in nodeDirs.
func nodePath(u *guest.Unit, users string) string {
	dirs := filepath.SplitList(users)
	for _, d := range nodeDirs(u) {
		dirs = append(dirs, inside(u, d))
	}
	return joinPath(dirs)
}

// nodeDirs are the host's folders that Node looks for packages in: the layers', that of the supplied SDKs, the code.
func nodeDirs(u *guest.Unit) []string {
	var dirs []string
	if u.Layers != "" {
		major := "node" + strings.TrimSuffix(strings.TrimPrefix(u.Runtime, "nodejs"), ".x")
		dirs = append(dirs, filepath.Join(u.Layers, "nodejs", major, "node_modules"), filepath.Join(u.Layers, "nodejs", "node_modules"))
	}
	if u.Supplied != "" {
		dirs = append(dirs, filepath.Join(u.Supplied, "nodejs", "node_modules"))
	}
	return append(dirs, u.Root)
}

func joinPath(dirs []string) string { return strings.Join(dirs, string(filepath.ListSeparator)) }

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}
