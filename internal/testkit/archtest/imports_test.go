package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ebb-run/ebb/"

// source is one Go file of the repository.
type source struct {
	pkg     string // "internal/engine"
	file    string
	test    bool
	doc     bool
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	var all []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "node_modules" || name == ".git" || name == "examples" || name == "starters" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		s := source{pkg: path.Dir(filepath.ToSlash(rel)), file: filepath.ToSlash(rel), test: strings.HasSuffix(p, "_test.go"), doc: f.Doc != nil}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, name)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found; the walk is wrong", len(all))
	}
	return all
}

var (
	pure = []string{"internal/app", "internal/event", "internal/invocation", "internal/diag", "internal/errs", "internal/arn"}
	// languages are what subscribers say which events they want, and in which form: text in, an answer out.
	languages = []string{"internal/bus/rawjson", "internal/bus/cesql", "internal/bus/pattern", "internal/bus/transform", "internal/bus/filter"}
	contracts = []string{"internal/frontend", "internal/sandbox", "internal/guest", "internal/store", "internal/target"}
)

// within says whether pkg is one of the folders or below one.
func within(pkg string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return pkg == f || strings.HasPrefix(pkg, f+"/") })
}

// part is the implementation of a contract that a package belongs to, or "".
func part(pkg, contract string) string {
	rest, ok := strings.CutPrefix(pkg, contract+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return contract + "/" + name
}

// rule forbids edges of the import graph.
type rule struct {
	name   string
	reason string
	bad    func(from, to string) bool // to is a path inside the module ("internal/x") or a full outside path
}

func local(to string) bool { return within(to, "internal", "cmd", "bench", "test") }

func std(to string) bool {
	first, _, _ := strings.Cut(to, "/")
	return !strings.Contains(first, ".") && !local(to)
}

// confined lists outside dependencies and the only folders that may import them.
var confined = []struct {
	prefix  string
	folders []string
	reason  string
}{
	{"github.com/nats-io/", []string{"internal/nats", "internal/bus", "internal/state", "internal/store/nats", "bench"}, "one place knows the message system; a benchmark measures it without the rest"},
	{"github.com/minio/highwayhash", []string{"internal/nats"}, "the checksum of the message system's files"},
	{"github.com/minio/crc64nvme", []string{"internal/checksum"}, "one place knows the checksums of objects"},
	{"github.com/zeebo/xxh3", []string{"internal/checksum"}, "one place knows the checksums of objects"},
	{"github.com/cespare/xxhash", []string{"internal/checksum"}, "one place knows the checksums of objects"},
	{"github.com/tetratelabs/wazero", []string{"internal/sandbox/wasm"}, "one driver knows the Wasm engine"},
	{"modernc.org/", []string{"internal/store/sqlite", "internal/store/fs", "internal/bus", "internal/snapshot", "internal/vfs"}, "SQL lives behind store contracts, in the bus's index, and in what copies a database; one place seals its files"},
	{"golang.org/x/crypto/", []string{"internal/seal", "internal/nats"}, "one place seals data at rest; another looks into what the message system has sealed"},
	{"github.com/jackc/", []string{"internal/store/postgres"}, "SQL lives behind store contracts"},
	{"filippo.io/", []string{"internal/backup"}, "one place seals and opens backups"},
	{"github.com/BurntSushi/toml", []string{"internal/frontend"}, "file formats end at the front-ends"},
	{"go.yaml.in/", []string{"internal/frontend", "internal/config"}, "file formats end at the front-ends"},
	{"gopkg.in/yaml", nil, "an archived library"},
	{"github.com/evanw/esbuild", []string{"internal/build"}, "bundling is a build step"},
	{"github.com/spf13/", []string{"internal/cli"}, "the command line's own"},
	{"github.com/fsnotify/", []string{"internal/cli"}, "only `ebb up` watches files"},
	{"github.com/prometheus/", []string{"internal/telemetry"}, "one place knows the metrics library"},
	{"golang.org/x/net/", []string{"internal/sandbox/process/capture"}, "only there are DNS packets read and written"},
	{"github.com/caddyserver/", []string{"internal/certs"}, "one place knows ACME"},
	{"software.sslmate.com/", []string{"internal/certs"}, "certificates are made in one place"},
	{"go.uber.org/", []string{"internal/certs"}, "the log that the ACME library asks for"},
	{"github.com/aws/", []string{"internal/target", "internal/wire/pass", "test", "bench"}, "cloud SDKs are for tests and targets, and for what goes on to the cloud"},
}

func rules() []rule {
	all := []rule{
		{"pure packages", "the model must be usable everywhere and pull in nothing", func(from, to string) bool {
			return within(from, pure...) && !std(to) && !within(to, pure...)
		}},
		{"contracts", "an implementer must need nothing but the contract", func(from, to string) bool {
			if !slices.Contains(contracts, from) || std(to) || within(to, pure...) {
				return false
			}
			return from != "internal/guest" || to != "internal/sandbox" // a protocol runs over a sandbox's Conn
		}},
		{"implementations and siblings", "implementations must be replaceable one by one", func(from, to string) bool {
			for _, c := range contracts {
				own, of := part(from, c), part(to, c)
				if own == "" || of == "" || of == own || own == c+"/all" { // an implementation's parts are its own
					continue
				}
				viaCloudFormation := to == "internal/frontend/cloudformation" && within(from, "internal/frontend/cdk", "internal/frontend/sam", "internal/frontend/serverless")
				common := to == "internal/store/rows" // one encoding of Items and keys for all databases
				return !viaCloudFormation && !common  // SAM and serverless.yml compile to a template
			}
			return false
		}},
		{"implementations and engine", "drivers, protocols and front-ends know nothing of placement", func(from, to string) bool {
			return within(from, contracts...) && within(to, "internal/engine", "internal/gateway", "internal/server", "internal/cli", "internal/api")
		}},
		{"front-ends and targets", "what is read and where it is deployed share only the model", func(from, to string) bool {
			return within(from, "internal/frontend") && within(to, "internal/target") || within(from, "internal/target") && within(to, "internal/frontend")
		}},
		{"engine", "placement must not depend on how work arrives or is stored", func(from, to string) bool {
			return within(from, "internal/engine") && (within(to, "net/http", "database/sql", "internal/gateway", "internal/bus", "internal/nats", "internal/state", "internal/store") ||
				strings.HasPrefix(to, "github.com/"))
		}},
		{"gateway and bus reach the engine through their own one-method interface", "front doors must be testable without an engine", func(from, to string) bool {
			return within(from, "internal/gateway", "internal/bus") && within(to, "internal/engine", "internal/guest", "internal/sandbox")
		}},
		{"the bus's languages", "they must be usable without a store, in front-ends and provider APIs too", func(from, to string) bool {
			if !within(from, languages...) || std(to) || within(to, pure...) || from == to {
				return false
			}
			return to != "internal/bus/rawjson" && (from != "internal/bus/filter" || !within(to, "internal/bus/pattern", "internal/bus/cesql"))
		}},
		{"the bus's languages and the network", "what an event means is not asked of others", func(from, to string) bool {
			return within(from, languages...) && within(to, "net/http", "os", "database/sql")
		}},
		{"who names implementations", "everything else takes them by value", func(from, to string) bool {
			for _, c := range contracts {
				if strings.HasPrefix(to, c+"/") && !within(from, c, "bench") { // a benchmark measures one without the rest
					helper := to == c+"/all"                                                                                           // a registry is what a composition asks
					return !helper && !within(from, "internal/server") && (from != "internal/cli" || to != "internal/sandbox/process") // `ebb doctor` asks the driver
				}
			}
			return false
		}},
	}
	for _, c := range confined {
		all = append(all, rule{"confined: " + c.prefix, c.reason, func(from, to string) bool {
			return strings.HasPrefix(to, c.prefix) && !within(from, c.folders...)
		}})
	}
	return all
}

func TestImports_FollowTheDirectionRules(t *testing.T) {
	t.Parallel()
	all := sources(t)
	for _, r := range rules() {
		for _, s := range all {
			if s.test {
				continue
			}
			for _, i := range s.imports {
				to := strings.TrimPrefix(i, module)
				if r.bad(s.pkg, to) {
					t.Errorf("%s imports %s; rule %q: %s", s.file, to, r.name, r.reason)
				}
			}
		}
	}
}

func TestImports_RulesRefuseWhatTheyName(t *testing.T) {
	t.Parallel()
	for _, edge := range [][2]string{
		{"internal/app", "internal/engine"}, {"internal/errs", "github.com/spf13/cobra"}, {"internal/sandbox", "internal/engine"},
		{"internal/sandbox/process", "internal/sandbox/wasm"}, {"internal/sandbox/wasm", "internal/sandbox/process/capture"}, {"internal/guest/lambda", "internal/engine"}, {"internal/engine", "net/http"},
		{"internal/gateway", "internal/engine"}, {"internal/gateway", "github.com/nats-io/nats.go"}, {"internal/api", "internal/guest/lambda"},
		{"internal/frontend/serverless", "internal/target"}, {"internal/bus/pattern", "internal/bus"}, {"internal/bus/pattern", "internal/bus/filter"}, {"internal/bus/transform", "internal/bus/pattern"},
		{"internal/bus/filter", "github.com/nats-io/nats.go"}, {"internal/bus/cesql", "net/http"}, {"internal/store/postgres", "internal/store/sqlite"}, {"internal/wire/dynamodb", "internal/store/rows"},
	} {
		if !slices.ContainsFunc(rules(), func(r rule) bool { return r.bad(edge[0], edge[1]) }) {
			t.Errorf("no rule refuses %s importing %s", edge[0], edge[1])
		}
	}
	for _, edge := range [][2]string{
		{"internal/app", "strings"}, {"internal/guest", "internal/sandbox"}, {"internal/frontend/serverless", "internal/frontend/cloudformation"}, {"internal/store/sqlite", "internal/store/rows"},
		{"internal/server", "internal/guest/lambda"}, {"internal/frontend/all", "internal/frontend/serverless"}, {"internal/cli", "internal/frontend/all"},
		{"internal/bus/filter", "internal/bus/cesql"}, {"internal/bus/pattern", "internal/bus/rawjson"}, {"internal/bus/pattern", "net/netip"}, {"internal/bus", "internal/bus/pattern"},
	} {
		for _, r := range rules() {
			if r.bad(edge[0], edge[1]) {
				t.Errorf("rule %q refuses %s importing %s", r.name, edge[0], edge[1])
			}
		}
	}
}

func TestPackages_SayWhatTheyAre(t *testing.T) {
	t.Parallel()
	has := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			has[s.pkg] = has[s.pkg] || s.doc
		}
	}
	for pkg, ok := range has {
		if !ok {
			t.Errorf("package %s has no doc comment", pkg)
		}
	}
}

func TestFiles_StayReadable(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "..")
	for _, s := range sources(t) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(root, s.file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if lines := fset.File(f.FileStart).LineCount(); lines > 600 && !s.test {
			t.Errorf("%s has %d lines; 600 is the most", s.file, lines)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s has an init function; plug by value", s.file)
			}
		}
	}
}
