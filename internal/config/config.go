// Package config holds the server's settings, each declared once.
//
// Main types: [Config], the values, and [Setting], a declaration from which the flag, the environment
// variable, the key of the settings file and the line of the reference page derive.
//
// Guarantees:
//
//  1. A flag wins over the environment, that over the file, that over the default.
//  2. A Config is not changed after Load.
//  3. An unknown key of the file and a value that cannot be read are errors that name the place.
//
// Settings of Apps are not here; they are in the App.
package config

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// Config is the settings of one Node.
type Config struct {
	Listen           string        // address of the gateway
	APIListen        string        // address of the control API; beyond loopback with TLS and keys only
	AWSListen        string        // address of the AWS endpoint; empty means the usual one
	AWSPass          []string      // services of which functions reach the real AWS
	AWSPassAs        string        // where the credentials for that are: "env" or "profile:NAME"
	TLSCert, TLSKey  string        // PEM files
	TLSDomains       []string      // names to get certificates for by ACME
	TLSOwn           bool          // certificates of a CA in the data directory
	TLSNames         []string      // further names and addresses of those
	PlainHTTP        bool          // the gateway speaks HTTP without TLS also beyond loopback
	ACME             ACME          // how TLSDomains are got
	Data             string        // data directory
	SealKeyFile      string        // file with the key that seals it; empty for none
	SealScratch      string        // folder of what is in clear while functions run; empty for one in memory
	NATS             string        // URL of an external NATS cluster; empty means embedded
	NATSReplicas     int           // copies that it keeps
	Tables           string        // URL of the PostgreSQL database of tables, which may hold a password; empty means embedded
	TablesFile       string        // file with that URL
	MemoryMB         int           // MiB that Instances may use together; 0 means 80 % of the machine
	Overcommit       int           // how many times MemoryMB the Instances may declare together
	KeepAlive        time.Duration // how long an Instance may stay Idle
	MaxAge           time.Duration // how long an Instance serves before another takes its place
	FreezeAfter      time.Duration // how long an Instance is Idle before it is frozen; negative means never
	CompileAhead     string        // On or Off
	CPULimits        string        // CPUNone, CPUShared or CPUProportional
	LearnKeepAlive   bool          // from when each Unit is called; KeepAlive where that says nothing
	QueueTimeout     time.Duration // how long an Invocation may wait for an Instance
	Queue            int           // Invocations that may wait per Unit
	MaxBodyMB        int           // MiB of a request body
	MaxEventKB       int           // KiB of an event, message, record or asynchronous payload
	LogMaxMB         int           // MiB of kept function output
	AuditMax         int           // records of changes that are kept, and a quarter of that of what functions change and of denials
	AuditAge         time.Duration // how long they are kept
	LogLevel         string        // debug, info, warn, error
	Isolation        string        // "auto", "none" or "strong"
	OCIRuntime       string        // path or name
	Egress           string        // where functions may connect to: a mode, or a mode and destinations
	IAM              string        // IAMWarn, IAMEnforce or IAMOff
	BuildEgress      string        // where builds may connect to beside registries
	BuildEnv         []string      // names of variables that a project's tools see
	AllowFiles       []string      // files and folders outside of a project that it may have read
	RequireIsolation bool          // refuse to run where a protection of functions is missing
	AllowUnprotected bool          // serve routes whose protection is not active yet
	Account          string        // AWS account id shown to functions
}

// What is or is not.
const (
	On  = "on"
	Off = "off"
)

// What an Instance's memory says about processors.
const (
	CPUNone         = "none"         // nothing: it is like any other process
	CPUShared       = "shared"       // its weight while processors are contended
	CPUProportional = "proportional" // that, and what it may use at most
)

// What IAM says of functions' calls.
const (
	IAMWarn    = "warn"    // what is missing is shown
	IAMEnforce = "enforce" // what is not allowed is refused
	IAMOff     = "off"     // only what is denied by a statement is refused
)

// ACME is how certificates are got from a certificate authority.
type ACME struct {
	URL   string // of the directory; empty means Let's Encrypt
	Email string
	CA    string // PEM file: what the directory's own certificate must come from
}

// TLS says whether the Node has certificates.
func (c *Config) TLS() bool { return c.TLSCert != "" || c.TLSOwn || len(c.TLSDomains) > 0 }

// Setting declares one setting.
type Setting struct {
	Name    string // the flag and the file's key: "api-listen"
	Default string
	Help    string // one line, no full stop
	Bool    bool
	Many    bool // the flag may be repeated; its values are joined by commas
	set     func(*Config, string) error
}

// Env is the setting's environment variable.
func (s Setting) Env() string {
	return "EBB_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Settings returns every setting in the order of the reference page.
func Settings() []Setting {
	return []Setting{
		str("listen", "127.0.0.1:3000", "address of the gateway; port 0 picks a free one; beyond loopback with TLS or --plain-http", func(c *Config) *string { return &c.Listen }),
		str("api-listen", "127.0.0.1:0", "address of the control API; with TLS for callers with keys, from elsewhere too", func(c *Config) *string { return &c.APIListen }),
		str("aws-listen", "", "address where AWS's clients find their services from outside of functions (default: 127.0.0.1:4566, or a free port where listen asks for one)", func(c *Config) *string { return &c.AWSListen }),
		list("aws-pass", "services, with commas between, that functions reach at the real AWS in place of here, by the first label of their endpoints (bedrock-runtime,s3)", func(c *Config) *[]string { return &c.AWSPass }),
		str("aws-pass-credentials", "env", "what that is signed with: env, the AWS_ variables of ebb itself, or profile:NAME of the AWS configuration files; functions do not see it", func(c *Config) *string { return &c.AWSPassAs }),
		str("tls-cert", "", "PEM file with the certificate chain; read again when it changes", func(c *Config) *string { return &c.TLSCert }),
		str("tls-key", "", "PEM file with its key", func(c *Config) *string { return &c.TLSKey }),
		list("tls-domain", "public names, with commas between, to get certificates for by ACME; their port 443 must lead to the gateway", func(c *Config) *[]string { return &c.TLSDomains }),
		flag("tls-self-signed", "certificates of a CA of ebb's own in the data directory, which the command keys ca prints", func(c *Config) *bool { return &c.TLSOwn }),
		list("tls-names", "further names and addresses, with commas between, that the certificate of --tls-self-signed is for", func(c *Config) *[]string { return &c.TLSNames }),
		str("acme-url", "", "URL of the ACME directory (default: Let's Encrypt, whose terms you accept with --tls-domain)", func(c *Config) *string { return &c.ACME.URL }),
		str("acme-email", "", "address that the ACME server may write to", func(c *Config) *string { return &c.ACME.Email }),
		str("acme-ca", "", "PEM file: the CA of a private ACME server's own certificate", func(c *Config) *string { return &c.ACME.CA }),
		flag("plain-http", "serve the gateway without TLS, also beyond loopback, for a proxy in front that has TLS", func(c *Config) *bool { return &c.PlainHTTP }),
		str("data", "", "data directory (default: .ebb in the project for up, the user's data folder for serve)", func(c *Config) *string { return &c.Data }),
		str("seal-key-file", "", "file with the key that seals a new data directory, and opens it from then on; see the command keys seal-new", func(c *Config) *string { return &c.SealKeyFile }),
		str("seal-scratch", "", "folder in memory or on an encrypted disk for what functions need in clear while they run (default: one in /dev/shm or XDG_RUNTIME_DIR)", func(c *Config) *string { return &c.SealScratch }),
		str("nats", "", "URL of an external NATS cluster (default: embedded)", func(c *Config) *string { return &c.NATS }),
		num("nats-replicas", "3", "copies that an external NATS cluster is to keep of everything; 1 for a single server", func(c *Config) *int { return &c.NATSReplicas }),
		str("tables", "", "URL of the PostgreSQL database that keeps tables, postgres://USER@HOST/DATABASE, without a password on the command line (default: a file of the data directory)", func(c *Config) *string { return &c.Tables }),
		str("tables-file", "", "file with that URL, which may hold a password; PGPASSFILE and a service file of PostgreSQL do too", func(c *Config) *string { return &c.TablesFile }),
		num("memory", "0", "MiB that Instances may use together; 0 is 80 % of the machine", func(c *Config) *int { return &c.MemoryMB }),
		num("overcommit", "4", "how many times that memory Instances may declare together; each stays within its own limit", func(c *Config) *int { return &c.Overcommit }),
		dur("keep-alive", "5m", "how long an Instance may stay idle before it is stopped", func(c *Config) *time.Duration { return &c.KeepAlive }),
		{Name: "max-age", Default: "12h", Help: "how long an Instance serves before another takes its place, also while it is called; functions' credentials outlive it (1s to 720h)", set: func(c *Config, s string) (err error) {
			if c.MaxAge, err = time.ParseDuration(s); err != nil || c.MaxAge < time.Second || c.MaxAge > 720*time.Hour {
				return fmt.Errorf("%q is not a duration from 1s to 720h, such as 12h", s)
			}
			return nil
		}},
		{Name: "freeze-after", Default: "1s", Help: "how long an Instance is idle before its processes are frozen, or never", set: func(c *Config, s string) (err error) {
			if c.FreezeAfter = -1; s == "never" {
				return nil
			}
			if c.FreezeAfter, err = time.ParseDuration(s); err != nil || c.FreezeAfter <= 0 {
				return fmt.Errorf("%q is neither a duration such as 500ms or 5s nor never", s)
			}
			return nil
		}},
		one("compile-ahead", On, []string{On, Off},
			"run the init of functions with much code once after their deploy, without a network, to have it compiled before the first cold start", func(c *Config) *string { return &c.CompileAhead }),
		one("iam", IAMWarn, []string{IAMWarn, IAMEnforce, IAMOff},
			"what happens to a call of a function to AWS's services that the statements of its role do not allow: it is shown in the log with the statement that is missing, or refused", func(c *Config) *string { return &c.IAM }),
		one("cpu-limits", CPUNone, []string{CPUNone, CPUShared, CPUProportional},
			"processors by memory, 1,769 MB for each: shared counts only while they are contended, proportional also holds each Instance to its part", func(c *Config) *string { return &c.CPULimits }),
		{Name: "keep-alive-policy", Default: "fixed", Help: "fixed, or learned: each function's own from when it is called, with Instances started just before; keep-alive where that says nothing", set: func(c *Config, s string) error {
			if s != "fixed" && s != "learned" {
				return fmt.Errorf("%q is not one of fixed, learned", s)
			}
			c.LearnKeepAlive = s == "learned"
			return nil
		}},
		dur("queue-timeout", "10s", "how long an Invocation may wait for an Instance before it gets 429", func(c *Config) *time.Duration { return &c.QueueTimeout }),
		num("queue", "1000", "Invocations that may wait per Unit", func(c *Config) *int { return &c.Queue }),
		num("max-body", "10", "MiB of a request body", func(c *Config) *int { return &c.MaxBodyMB }),
		{Name: "max-event", Default: "1024", Help: "KiB of an event, of the payload of an asynchronous invocation, of a publication, a record, and a message where its queue says nothing; 1 to 65536", set: func(c *Config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > 65536 {
				return fmt.Errorf("%q is not a whole number from 1 to 65536", s)
			}
			c.MaxEventKB = n
			return nil
		}},
		num("log-max", "256", "MiB of function output kept on disk, and as much again of what clients put into log groups", func(c *Config) *int { return &c.LogMaxMB }),
		{Name: "audit-max", Default: "500000", Help: "records of changes that the audit log keeps, some 500 bytes each, a quarter as many of what functions change, and as many of refusals; the oldest go first", set: func(c *Config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1000 {
				return fmt.Errorf("%q is not a whole number from 1000", s)
			}
			c.AuditMax = n
			return nil
		}},
		dur("audit-age", "8760h", "how long the audit log keeps a record", func(c *Config) *time.Duration { return &c.AuditAge }),
		one("isolation", "auto", []string{"auto", "none", "strong"}, "how functions and builds are kept from the machine and each other; auto is all that it allows, strong adds a kernel of its own for each function", func(c *Config) *string { return &c.Isolation }),
		str("oci-runtime", "runsc", "path or name of the OCI runtime of functions with strong isolation", func(c *Config) *string { return &c.OCIRuntime }),
		str("egress", "anything", "where isolated functions may connect to: anything, closed, or what a list names (api.example.com:443, *.example.com, 10.0.0.0/8:5432); addresses of this host only where named (anything,localhost:5432)", func(c *Config) *string { return &c.Egress }),
		str("build-egress", "", "where builds may connect to beside package registries, in the words of egress: anything, or a list (github.com:443)", func(c *Config) *string { return &c.BuildEgress }),
		{Name: "build-env", Help: "names of variables, with commas between, that a project's build tools and configuration scripts see beside those of the tools themselves", set: func(c *Config, s string) error {
			c.BuildEnv = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
			return nil
		}},
		{Name: "allow-files", Many: true, Help: "file or folder outside of the project that it may have read and packaged; may be repeated, or hold several with commas between", set: func(c *Config, s string) error {
			c.AllowFiles = nil
			for part := range strings.SplitSeq(s, ",") {
				if part = strings.TrimSpace(part); part != "" {
					c.AllowFiles = append(c.AllowFiles, part)
				}
			}
			return nil
		}},
		{Name: "require-isolation", Default: "false", Bool: true, Help: "refuse to start where a protection of functions is missing", set: func(c *Config, s string) (err error) {
			c.RequireIsolation, err = strconv.ParseBool(s)
			return err
		}},
		one("log-level", "warn", []string{"debug", "info", "warn", "error"}, "level of the server's own log", func(c *Config) *string { return &c.LogLevel }),
		{Name: "allow-unprotected", Default: "false", Bool: true, Help: "serve routes whose authorizer, key or policy is not active yet", set: func(c *Config, s string) (err error) {
			c.AllowUnprotected, err = strconv.ParseBool(s)
			return err
		}},
		{Name: "account", Default: "000000000000", Help: "AWS account id that functions see", set: func(c *Config, s string) error {
			if len(s) != 12 || strings.Trim(s, "0123456789") != "" {
				return fmt.Errorf("%q is not 12 digits", s)
			}
			c.Account = s
			return nil
		}},
	}
}

func str(name, def, help string, p func(*Config) *string) Setting {
	return Setting{Name: name, Default: def, Help: help, set: func(c *Config, s string) error { *p(c) = s; return nil }}
}

// one is a setting that takes one of few words; they are added to its help.
func one(name, def string, words []string, help string, p func(*Config) *string) Setting {
	all := strings.Join(words, ", ")
	return Setting{Name: name, Default: def, Help: help + " (" + all + ")", set: func(c *Config, s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("%q is not one of %s", s, all)
		}
		*p(c) = s
		return nil
	}}
}

func list(name, help string, p func(*Config) *[]string) Setting {
	return Setting{Name: name, Help: help, set: func(c *Config, s string) error {
		*p(c) = nil
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.ToLower(strings.TrimSpace(part)); part != "" {
				*p(c) = append(*p(c), part)
			}
		}
		return nil
	}}
}

func flag(name, help string, p func(*Config) *bool) Setting {
	return Setting{Name: name, Default: "false", Bool: true, Help: help, set: func(c *Config, s string) (err error) {
		*p(c), err = strconv.ParseBool(s)
		return err
	}}
}

func num(name, def, help string, p func(*Config) *int) Setting {
	return Setting{Name: name, Default: def, Help: help, set: func(c *Config, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not a whole number from 0", s)
		}
		*p(c) = n
		return nil
	}}
}

func dur(name, def, help string, p func(*Config) *time.Duration) Setting {
	return Setting{Name: name, Default: def, Help: help, set: func(c *Config, s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a duration such as 30s or 5m", s)
		}
		*p(c) = d
		return nil
	}}
}

// Sources is where Load looks.
type Sources struct {
	Flags map[string]string            // flags that were given, by Setting.Name
	Env   func(string) (string, bool)  // the environment
	File  string                       // path of a settings file, YAML, or empty
	Read  func(string) ([]byte, error) // reads the file; nil is os.ReadFile
}

// Load returns the settings, or one error that names every fault.
func Load(src Sources) (*Config, error) {
	file, err := readFile(src)
	if err != nil {
		return nil, err
	}
	c, faults := &Config{}, []string{}
	for _, s := range Settings() {
		value, place := s.Default, "default of "+s.Name
		if v, ok := file[s.Name]; ok {
			value, place = v, src.File+": "+s.Name
		}
		if src.Env != nil {
			if v, ok := src.Env(s.Env()); ok {
				value, place = v, "environment variable "+s.Env()
			}
		}
		if v, ok := src.Flags[s.Name]; ok {
			value, place = v, "flag --"+s.Name
		}
		if err := s.set(c, value); err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", place, err))
		}
	}
	faults = append(faults, c.faults()...)
	faults = append(faults, c.tablesFaults(src.Flags["tables"])...)
	if len(faults) > 0 {
		return nil, errs.New(errs.Invalid, "%s", strings.Join(faults, "; "))
	}
	return c, nil
}

// faults says what does not go together.
func (c *Config) faults() (faults []string) {
	ways := 0
	for _, given := range []bool{c.TLSCert != "" || c.TLSKey != "", c.TLSOwn, len(c.TLSDomains) > 0} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		faults = append(faults, "certificates come from one place: give --tls-cert and --tls-key, or --tls-domain, or --tls-self-signed")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		faults = append(faults, "--tls-cert and --tls-key belong together")
	}
	if c.SealScratch != "" && c.SealKeyFile == "" {
		faults = append(faults, "--seal-scratch is for --seal-key-file")
	}
	if len(c.TLSNames) > 0 && !c.TLSOwn {
		faults = append(faults, "--tls-names is for --tls-self-signed")
	}
	return faults
}

func readFile(src Sources) (map[string]string, error) {
	if src.File == "" {
		return nil, nil
	}
	read := src.Read
	if read == nil {
		read = os.ReadFile
	}
	data, err := read(src.File)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read settings: %w", err)
	}
	raw := map[string]yaml.Node{}
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return nil, errs.New(errs.Invalid, "read settings %s: %w", src.File, err)
	}
	var names []string
	for _, s := range Settings() {
		names = append(names, s.Name)
	}
	out := map[string]string{}
	for k, n := range raw {
		if !slices.Contains(names, k) {
			e := errs.New(errs.Invalid, "%s:%d: unknown setting %q", src.File, n.Line, k)
			if near := diag.Nearest(k, names); near != "" {
				e = e.WithHint("Did you mean %s?", near)
			}
			return nil, e
		}
		if n.Kind != yaml.ScalarNode {
			return nil, errs.New(errs.Invalid, "%s:%d: %s wants a single value", src.File, n.Line, k)
		}
		out[k] = n.Value
	}
	return out, nil
}

// Reference returns the reference page of all settings, in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("# Settings\n\nGenerated by `make docs`; do not edit. A flag wins over the environment variable, that over the settings file (`--config FILE`, YAML), that over the default.\n\n")
	b.WriteString("| flag and file key | environment | default | meaning |\n|---|---|---|---|\n")
	for _, s := range Settings() {
		def := s.Default
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", s.Name, s.Env(), def, s.Help)
	}
	return b.String()
}
