package lambda

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/guest"
)

// A guest that shares this machine's network finds its services by variables, and by hooks in Node.js and Python for what knows no such variables.
// What a project sets of these counts as long as it does not lead to the real services, or to what ebb's user has for them.

const (
	// captureVar tells the hooks where the services are: guest.Capture's TLS, Clear and Domains, with spaces between.
	captureVar = "_EBB_CAPTURE"
	nodeHook   = "node-capture.cjs"
	pythonHook = "capture" // a folder for the search path
)

// proxyVars are read in capitals by some programs and in small letters by others (curl: HTTP_PROXY only in small ones).
var proxyVars = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}

var exceptVars = []string{"NO_PROXY", "no_proxy"}

// profileVars name the files of profiles: AWS SDKs and Tools Reference Guide, "Location of the shared config and credentials files".
var profileVars = []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}

// sourceVars begin the names of those that lead to credentials elsewhere: the same Guide, "Container credential provider", "IMDS credential
// provider", "Assume role with web identity". AWS_CREDENTIAL_FILE and BOTO_CONFIG are those of older SDKs.
var sourceVars = []string{"AWS_CONTAINER_CREDENTIALS_", "AWS_CONTAINER_AUTHORIZATION_", "AWS_EC2_METADATA_", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CREDENTIAL_FILE", "BOTO_CONFIG"}

// Withheld names those variables of an environment that a guest with a guest.Capture does not get as they are set.
func Withheld(env, domains []string) []string {
	var names []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if withheld(name, value) || slices.Contains(exceptVars, name) && exceptions(value, domains) != value {
			names = append(names, name)
		}
	}
	return names
}

func withheld(name, value string) bool {
	switch {
	case slices.Contains(proxyVars, name), name == captureVar:
		return true
	case slices.Contains(profileVars, name):
		_, task := below(value, taskDir)
		_, opt := below(value, optDir)
		return !filepath.IsLocal(value) && (!task && !opt || value != filepath.Clean(value))
	case name == "HOME":
		_, err := os.Stat(filepath.Join(value, ".aws"))
		return err == nil || !filepath.IsAbs(value)
	}
	return slices.ContainsFunc(sourceVars, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// capturing is the environment of a guest with a guest.Capture.
func (p *Protocol) capturing(u *guest.Unit, env []string) []string {
	c := u.Capture
	said := map[string]string{}
	var all []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case withheld(name, value):
			continue
		case name == "NODE_OPTIONS", name == "PYTHONPATH", slices.Contains(exceptVars, name):
			said[name] = value
			continue
		case slices.Contains(profileVars, name) && filepath.IsAbs(value):
			kv = name + "=" + outside(u, value)
		}
		said[name] = value
		all = append(all, kv)
	}
	unless := func(name, value string) {
		if _, ok := said[name]; !ok && value != "" {
			all = append(all, name+"="+value)
		}
	}
	all = append(all,
		captureVar+"="+strings.Join(append([]string{c.TLS, c.Clear}, c.Domains...), " "),
		"NODE_OPTIONS="+strings.TrimSpace("--require "+quoted(p.bootstrap(u, nodeHook))+" "+said["NODE_OPTIONS"]),
		"PYTHONPATH="+joinPath(append([]string{p.bootstrap(u, pythonHook)}, filepath.SplitList(said["PYTHONPATH"])...)),
		"AWS_EC2_METADATA_DISABLED=true",
	)
	for _, name := range profileVars {
		unless(name, c.Empty)
	}
	unless("AWS_ENDPOINT_URL", c.URL)
	unless("NODE_EXTRA_CA_CERTS", c.CA)
	bundle := c.Roots
	if bundle == "" {
		bundle = c.CA
	}
	unless("AWS_CA_BUNDLE", bundle)
	unless("SSL_CERT_FILE", c.Roots)
	unless("REQUESTS_CA_BUNDLE", c.Roots)
	for _, name := range proxyVars[:4] {
		unless(name, c.Proxy)
	}
	list := "localhost,127.0.0.1,::1"
	for i, name := range exceptVars {
		if more := exceptions(said[name], c.Domains); more != "" && (i == 0 || more != said[exceptVars[0]]) {
			list += "," + more
		}
	}
	return append(all, exceptVars[0]+"="+list, exceptVars[1]+"="+list)
}

// quoted is a path as one word of NODE_OPTIONS.
func quoted(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}

// metadata is where clouds give a machine its credentials.
var metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("fd00:ec2::254")}

// exceptions are those entries of NO_PROXY that cover neither one of the domains nor metadata.
func exceptions(list string, domains []string) string {
	words := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	kept := slices.DeleteFunc(slices.Clone(words), func(word string) bool {
		host := strings.TrimLeft(strings.ToLower(word), "*.")
		if net, err := netip.ParsePrefix(host); err == nil {
			return slices.ContainsFunc(metadata, net.Contains)
		}
		if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			return slices.Contains(metadata, addr)
		}
		host, _, _ = strings.Cut(host, ":")
		return host == "" || slices.ContainsFunc(domains, func(d string) bool {
			return host == d || strings.HasSuffix(d, "."+host) || strings.HasSuffix(host, "."+d)
		})
	})
	if len(kept) == len(words) {
		return list
	}
	return strings.Join(kept, ",")
}
