package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/evanw/esbuild/pkg/api"
	"golang.org/x/sys/unix"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

const (
	// plainVar names the folder that was prepared, to the test that runs in a network of its own.
	plainVar = "EBB_TEST_PLAIN"
	canary   = "canary5d41402abc4b2a76b9719d911017c592"
	realAWS  = "203.0.113.7" // RFC 5737: nobody's
	metadata = "169.254.169.254"
	tasks    = "169.254.170.2" // where containers find theirs
)

// Functions that are plain processes call AWS, on a machine whose user has credentials for the real one in every place that clients look in. The
// network is one of the test's own, in which AWS and the machine's metadata are what notes each connection.
func TestPlain_NothingReachesAWSByAccident(t *testing.T) {
	if dir := os.Getenv(plainVar); dir != "" {
		plainInside(t, dir)
		return
	}
	dir := preparePlain(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestPlain_NothingReachesAWSByAccident$", "-test.v", "-test.timeout=9m")
	cmd.Env = append(os.Environ(), plainVar+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	switch err := cmd.Start(); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EINVAL):
		t.Skipf("this machine gives no network of the test's own: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// preparePlain makes, with the network that there is, what the project needs: SDKs, and a Go program.
func preparePlain(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with boto3: %v %s", err, out)
	}
	dir := t.TempDir()
	p := filepath.Join(dir, "p")
	if err := os.CopyFS(p, os.DirFS("testdata/plain")); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(p, "bootstrap"), ".")
	build.Dir = filepath.Join("testdata", "plaingo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("the Go SDKs are not to be had: %v %s", err, out)
	}
	// All of v3 in one file, as bundlers make it.
	install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", dir, "@aws-sdk/client-sts@3", "@aws-sdk/client-sqs@3")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("the SDK for Node.js is not to be had: %v %s", err, out)
	}
	r := api.Build(api.BuildOptions{
		EntryPoints: []string{filepath.Join(p, "v3.js")}, Outfile: filepath.Join(p, "bundled.js"), Bundle: true, Write: true, Platform: api.PlatformNode,
		Target: api.ES2022, MinifyWhitespace: true, NodePaths: []string{filepath.Join(dir, "node_modules")}, Alias: map[string]string{"spy": filepath.Join(p, "spy")},
	})
	if len(r.Errors) > 0 {
		t.Fatal(r.Errors)
	}
	s := ebb.Start(t, p, filepath.Join(dir, "first"), "up", "--isolation", "none", "--listen", "127.0.0.1:0") // has SDKs supplied
	if code := s.Interrupt(t); code != 0 {
		t.Fatalf("ebb ended with %d\n%s", code, s.Stderr())
	}
	if strings.Contains(s.Stderr(), "sdk-not-supplied") {
		t.Skip("the SDKs are not to be had: " + s.Stderr())
	}
	for _, name := range []string{"node_modules", "package-lock.json", "seen-install.json", "seen-config.json"} {
		if err := os.RemoveAll(filepath.Join(p, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// recorder notes who connects, and what is sent.
type recorder struct {
	mu  sync.Mutex
	got []string
}

func (r *recorder) listen(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, _ := c.Read(buf)
			_ = c.Close()
			r.mu.Lock()
			r.got = append(r.got, fmt.Sprintf("%s: %.200q", l.Addr(), buf[:n]))
			r.mu.Unlock()
		}
	}()
	return l.Addr().String()
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// plainNetwork makes the network: loopback with the addresses, names that lead to them, and what listens there.
func plainNetwork(t *testing.T, dir string, seen *recorder) (loopback string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for i, ip := range []string{"127.0.0.1", realAWS, metadata, tasks} {
		name := "lo"
		if i > 0 {
			name = fmt.Sprintf("lo:%d", i)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			err = req.SetInet4Addr(net.ParseIP(ip).To4())
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req)
		}
		if err == nil {
			req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
			err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
		}
		if err != nil {
			t.Fatalf("give the network %s: %v", ip, err)
		}
	}
	hosts := "127.0.0.1 localhost\n"
	for _, service := range []string{"sts", "sqs", "sso", "portal.sso", "oidc", "signin"} {
		for _, region := range []string{"", ".eu-west-1", ".us-east-1"} {
			hosts += realAWS + " " + service + region + ".amazonaws.com\n"
		}
	}
	write(t, filepath.Join(dir, "hosts"), hosts)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(dir, "hosts"), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{realAWS + ":443", realAWS + ":80", realAWS + ":8443", metadata + ":80", tasks + ":80"} {
		seen.listen(t, addr)
	}
	return seen.listen(t, "127.0.0.1:0")
}

// plainHome gives this process, and what it starts, the home and variables of a developer with credentials. The file is made by one of the profiles.
func plainHome(t *testing.T, dir, loopback string) (home, touched string) {
	t.Helper()
	before := os.Getenv("HOME")
	home, touched = filepath.Join(dir, "home"), filepath.Join(dir, "touched")
	write(t, filepath.Join(home, ".npmrc"), "fund=false\n")
	write(t, filepath.Join(home, ".aws", "credentials"), "[default]\naws_access_key_id = AKIA"+canary+"\naws_secret_access_key = "+canary+"\n")
	write(t, filepath.Join(home, "process"), "#!/bin/sh\ntouch "+touched+"\necho '{\"Version\": 1, \"AccessKeyId\": \"AKIA"+canary+"\", \"SecretAccessKey\": \""+canary+"\"}'\n")
	write(t, filepath.Join(home, ".aws", "config"), `[default]
region = eu-west-1
[profile process]
region = eu-west-1
credential_process = `+filepath.Join(home, "process")+`
[profile role]
region = eu-west-1
role_arn = arn:aws:iam::123456789012:role/canary
source_profile = default
[profile sso]
region = eu-west-1
sso_start_url = https://canary.awsapps.com/start
sso_region = eu-west-1
sso_account_id = 123456789012
sso_role_name = canary
`)
	// Its name is the SHA-1 of the start URL.
	write(t, filepath.Join(home, ".aws", "sso", "cache", "7490baf9d6cb9e8eb1d7891fee24dc1ec785965b.json"),
		`{"startUrl": "https://canary.awsapps.com/start", "region": "eu-west-1", "accessToken": "`+canary+`", "expiresAt": "2099-01-01T00:00:00Z"}`)
	for name, value := range map[string]string{
		"HOME": home, "AWS_PROFILE": "default", "AWS_ACCESS_KEY_ID": "AKIA" + canary, "AWS_SECRET_ACCESS_KEY": canary, "AWS_SESSION_TOKEN": canary,
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://" + loopback + "/", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + loopback + "/",
		"AWS_CONFIG_FILE": filepath.Join(home, ".aws", "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, ".aws", "credentials"),
	} {
		t.Setenv(name, value)
	}
	// What is installed and kept is still that of the user who runs the tests.
	for name, place := range map[string]string{"XDG_CACHE_HOME": ".cache", "PYENV_ROOT": ".pyenv", "NVM_DIR": ".nvm", "GOPATH": "go"} {
		if os.Getenv(name) == "" {
			t.Setenv(name, filepath.Join(before, place))
		}
	}
	return home, touched
}

// plainInside is the test, in its network.
func plainInside(t *testing.T, dir string) {
	seen := &recorder{}
	loopback := plainNetwork(t, dir, seen)
	home, touched := plainHome(t, dir, loopback)
	// With nothing between, each of these happens.
	for _, code := range []string{
		`import boto3; boto3.client("sts").get_caller_identity()`,
		`import boto3, os; os.environ.pop("AWS_ACCESS_KEY_ID"); boto3.Session(profile_name="process").client("sts").get_caller_identity()`,
		`import boto3; boto3.Session(profile_name="sso").client("sts").get_caller_identity()`,
		`import boto3; boto3.Session(profile_name="role").client("sts").get_caller_identity()`,
		`import urllib.request as u; u.urlopen("http://` + metadata + `/latest/")`,
	} {
		cmd := exec.Command("python3", "-c", code)
		cmd.Env = append(os.Environ(), "AWS_MAX_ATTEMPTS=1")
		if out, err := cmd.CombinedOutput(); err == nil || len(seen.take()) == 0 {
			t.Fatalf("%s reached nothing: %v %s", code, err, out)
		}
	}
	if err := os.Remove(touched); err != nil {
		t.Fatalf("the profile's program does not run where nothing keeps it: %v", err)
	}
	p, data := filepath.Join(dir, "p"), filepath.Join(dir, "data")
	s := ebb.Start(t, p, data, "up", "--isolation", "none", "--listen", "127.0.0.1:0")
	plainCalls(t, s, home)
	for _, name := range []string{"install", "config"} {
		plainSaw(t, filepath.Join(p, "seen-"+name+".json"), home)
	}
	if all := strings.Join(s.Events(), "\n") + s.Stderr(); !strings.Contains(all, "AWS_CONFIG_FILE, AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_EC2_METADATA_DISABLED, AWS_SHARED_CREDENTIALS_FILE, HOME, HTTPS_PROXY, NO_PROXY of set would") {
		t.Errorf("nobody is told of variables without effect:\n%s", all)
	}
	logged(t, s, "connection to "+metadata+":80 is not allowed")
	if code := s.Interrupt(t); code != 0 {
		t.Errorf("ebb ended with %d", code)
	}
	if got := seen.take(); len(got) > 0 {
		t.Errorf("connections to what is not ebb:\n%s", strings.Join(got, "\n"))
	}
	if _, err := os.Stat(touched); err == nil {
		t.Error("the program of a profile has run")
	}
	if files := holding(t, canary, data, filepath.Join(p, ".ebb")); len(files) > 0 {
		t.Errorf("the key is in %s", files)
	}
	if !strings.Contains(s.Stderr(), "functions are not isolated") {
		t.Error("functions were isolated: this was no test of plain ones")
	}
}

// plainCalls has each function call AWS: with its own credentials it reaches ebb, and with none others'.
func plainCalls(t *testing.T, s *harness.Server, home string) {
	client := &http.Client{Timeout: 2 * time.Minute}
	arn := regexp.MustCompile(`^(arn:|[0-9a-f-]{36}$)`)
	for path, least := range map[string]int{"v3": 5, "bundled": 5, "v2": 5, "boto": 6, "golang": 3, "curl": 2, "set": 5} {
		status, body := get(client, s.Ready.Gateway+"/"+path)
		got := map[string]string{}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
			continue
		}
		own := 0
		for name, text := range got {
			switch {
			case name == "home":
				if text == "" || strings.HasPrefix(text, home) {
					t.Errorf("%s has the home %q", path, text)
				}
			case strings.HasPrefix(name, "own"):
				if own++; !arn.MatchString(text) {
					t.Errorf("%s: %s: %s", path, name, text)
				}
			case !strings.HasPrefix(text, "failed: "):
				t.Errorf("%s: %s: %s", path, name, text)
			}
			if strings.Contains(text, canary) {
				t.Errorf("%s: %s knows the key: %s", path, name, text)
			}
		}
		if own < least-1 || len(got) < least {
			t.Errorf("%s made %d calls: %v", path, own, got)
		}
	}
}

// plainSaw looks at what one of the project's programs saw: the settings of package managers, and no credentials.
func plainSaw(t *testing.T, file, home string) {
	t.Helper()
	text, err := os.ReadFile(file)
	var saw struct {
		Env                              map[string]string
		Home, Npmrc, Credentials, Config string
	}
	if err == nil {
		err = json.Unmarshal(text, &saw)
	}
	if err != nil {
		t.Errorf("a program of the project has not run: %v", err)
		return
	}
	if strings.Contains(string(text), canary) || saw.Credentials != "ENOENT" || saw.Config != "ENOENT" || saw.Home == home || saw.Npmrc != "fund=false\n" {
		t.Errorf("%s: %s", filepath.Base(file), text)
	}
	var names []string
	for name := range saw.Env {
		if strings.HasPrefix(name, "AWS_") {
			names = append(names, name+"="+saw.Env[name])
		}
	}
	slices.Sort(names)
	if want := []string{"AWS_CONFIG_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"}; !slices.Equal(names, want) {
		t.Errorf("%s: %v", filepath.Base(file), names)
	}
}

// holding lists the files below folders that hold a text.
func holding(t *testing.T, text string, dirs ...string) (files []string) {
	t.Helper()
	read := 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			all, err := io.ReadAll(f)
			if read++; err == nil && strings.Contains(string(all), text) {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if read == 0 {
		t.Errorf("there are no files in %v", dirs)
	}
	return files
}
