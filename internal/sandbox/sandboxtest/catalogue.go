package sandboxtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// row is one kind of hostile guest.
type row struct {
	name  string
	says  string                 // one sentence for operators: what is held, and how
	lacks func(o Options) string // why it does not hold in a mode; "" where it does
	// shown: where it is said not to hold, it is tried nevertheless and must succeed. Only what harms nothing when it does is.
	shown bool
	test  func(t *testing.T, c *catalogue) (broken []string)
	of    []string // instead of test: the tests of the suite that hold it
}

// Verdict is what a row came to in a mode.
type Verdict struct {
	Row    string
	Passed bool   // the test did what the row says of this mode
	Lacks  string // why it does not hold here; "" where it does
}

// Titles are the names of the catalogue's rows.
func Titles() []string {
	var all []string
	for _, r := range rows() {
		all = append(all, r.name)
	}
	return all
}

// Book collects the verdicts of several modes, for a table. Its methods may be called concurrently.
type Book struct {
	// Path is the page whose section "sandboxes" the table is, which is written whenever there is something new; "" means nowhere.
	Path string
	// Verdicts is where the verdicts are written to, for a Book in another process to Include; "" means nowhere.
	Verdicts string

	mu struct {
		sync.Mutex
		modes []string
		found map[string][]Verdict
	}
}

func (b *Book) add(mode string, v []Verdict) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.found == nil {
		b.mu.found = map[string][]Verdict{}
	}
	if !slices.Contains(b.mu.modes, mode) {
		b.mu.modes = append(b.mu.modes, mode)
	}
	b.mu.found[mode] = v
	var failed error
	if b.Verdicts != "" {
		text, err := json.Marshal(b.mu.found)
		failed = errors.Join(err, os.WriteFile(b.Verdicts, text, 0o644))
	}
	if b.Path != "" {
		failed = errors.Join(failed, WriteSection(b.Path, "sandboxes", b.table()))
	}
	return failed
}

// Include takes in what another process's Book wrote to Verdicts.
func (b *Book) Include(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var found map[string][]Verdict
	if err := json.Unmarshal(text, &found); err != nil {
		return fmt.Errorf("read verdicts %s: %w", path, err)
	}
	for mode, v := range found {
		if err := b.add(mode, v); err != nil {
			return err
		}
	}
	return nil
}

// order is that of the modes in the table; others follow.
var order = []string{"isolated", "rootless", "copies", "copies, rootless", "cgroups v1", "no cgroups", "namespaces denied", "plain", "plain, no cgroups", "strong"}

// table is the page for operators. The mutex is held.
func (b *Book) table() string {
	modes := slices.Clone(b.mu.modes)
	slices.SortStableFunc(modes, func(x, y string) int { return place(x) - place(y) })
	var p strings.Builder
	p.WriteString(preface)
	fmt.Fprintf(&p, "\n| Hostile guest | %s |\n|---%s|\n", strings.Join(modes, " | "), strings.Repeat("|---", len(modes)))
	var notes []string
	for _, r := range rows() {
		fmt.Fprintf(&p, "| %s |", r.name)
		for _, m := range modes {
			i := slices.IndexFunc(b.mu.found[m], func(v Verdict) bool { return v.Row == r.name })
			p.WriteString(" " + b.cell(m, i, &notes) + " |")
		}
		p.WriteString("\n")
	}
	p.WriteString("\n")
	for i, n := range notes {
		fmt.Fprintf(&p, "%d. %s\n", i+1, n)
	}
	p.WriteString("\n## The rows\n\n")
	for _, r := range rows() {
		fmt.Fprintf(&p, "- **%s**: %s\n", r.name, r.says)
	}
	return p.String()
}

func (b *Book) cell(mode string, i int, notes *[]string) string {
	if i < 0 {
		return "not run"
	}
	v := b.mu.found[mode][i]
	switch {
	case !v.Passed:
		return "**FAILS**"
	case v.Lacks == "":
		return "holds"
	}
	n := slices.Index(*notes, v.Lacks)
	if n < 0 {
		n, *notes = len(*notes), append(*notes, v.Lacks)
	}
	return fmt.Sprintf("no (%d)", n+1)
}

func place(mode string) int {
	if i := slices.Index(order, mode); i >= 0 {
		return i
	}
	return len(order)
}

const preface = `The drivers' tests run each of these guests in each mode: a row *holds* when everything that the guest tried came to nothing. Where a row
does not hold, the number says why; what harms nothing is tried there as well, and seen to succeed. The table is of the machine that ran the
tests last; ` + "`ebb doctor`" + ` says what holds on yours.

The modes: *isolated* is ebb as root; *rootless*, ebb as a user without rights; *copies*, guests that are
copies of a process that was ready, as Python functions are; *cgroups v1* and *no cgroups*, root on machines with only these, or
none; *namespaces denied*, a user without rights on a machine that allows no namespaces, as in a container with its engine's default profile, and
ebb's data in /tmp, which is closed to functions then; where it is elsewhere /tmp is everybody's;
*plain*, ` + "`--isolation none`" + `; *strong*, ` + "`--isolation strong`" + ` with gVisor's runsc.
`

// catalogue is what the rows of one mode share.
type catalogue struct {
	*suite
	d sandbox.Driver
}

// testCatalogue runs all rows that have a test of their own.
func testCatalogue(t *testing.T, s *suite, done func(row string, passed bool)) {
	if runtime.GOOS != "linux" {
		t.Skip("the hostile guests of the catalogue are written for Linux")
	}
	c := &catalogue{suite: s, d: s.driver(t)}
	for _, r := range rows() {
		if r.test == nil {
			continue
		}
		t.Run(strings.NewReplacer(" ", "_", "/", "").Replace(r.name), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() { done(r.name, !t.Failed()) })
			r.judge(t, c, r.lacks(s.o))
		})
	}
}

// verdicts are those of all rows, once all tests have ended.
func verdicts(o Options, passed func(test string) bool) []Verdict {
	var all []Verdict
	for _, r := range rows() {
		of := r.of
		if r.test != nil {
			of = []string{r.name}
		}
		all = append(all, Verdict{Row: r.name, Lacks: r.lacks(o), Passed: !slices.ContainsFunc(of, func(test string) bool { return !passed(test) })})
	}
	return all
}

func (r row) judge(t *testing.T, c *catalogue, lacks string) {
	if lacks != "" && !r.shown {
		t.Skipf("does not hold in this mode, and is not tried: %s", lacks)
	}
	broken := r.test(t, c)
	switch {
	case lacks == "":
		for _, b := range broken {
			t.Errorf("the guest got through: %s", b)
		}
	case len(broken) == 0:
		t.Errorf("the row says that it does not hold in this mode (%s), but nothing came of it", lacks)
	default:
		t.Logf("does not hold in this mode: %s\n%d attempts succeeded, such as: %s", lacks, len(broken), strings.Join(broken[:min(3, len(broken))], "; "))
	}
}

// attack starts an attack in a Sandbox of its own and waits until it has tried everything.
func (c *catalogue) attack(t *testing.T, spec sandbox.Spec, name string, args ...string) (*trial, []string) {
	t.Helper()
	r := c.launch(t, c.d, spec, nil, name, args...)
	said := r.report()
	return r, said.broken
}

// launch starts an attack with an environment.
func (c *catalogue) launch(t *testing.T, d sandbox.Driver, spec sandbox.Spec, env []string, name string, args ...string) *trial {
	t.Helper()
	r := c.prepare(t, d, spec)
	code := Guest(r.token, append([]string{"attack", name}, args...)...)
	code.Env = env
	var err error
	if r.conn, err = r.Start(t.Context(), code); err != nil {
		t.Fatal(err)
	}
	return r
}

// said is what an attack reported.
type said struct {
	broken []string
	notes  map[string]string
	tried  int
	ended  bool // it came to its end
}

// hear reads an attack's report up to its end, or the guest's.
func (r *trial) hear() said {
	r.t.Helper()
	c := r.conn.Stream()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	s := said{notes: map[string]string{}}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "broke":
			s.broken = append(s.broken, text)
		case "tried":
			s.tried++
		case "note":
			key, value, _ := strings.Cut(text, " ")
			s.notes[key] = value
		case "end":
			s.ended = true
			return s
		}
	}
	if errors.Is(lines.Err(), os.ErrDeadlineExceeded) {
		r.t.Fatalf("the attack hangs; output:\n%s", tail(r.out.String()))
	}
	return s
}

// report is what an attack that must come to its end said.
func (r *trial) report() said {
	r.t.Helper()
	s := r.hear()
	if !s.ended {
		r.t.Fatalf("the attack ended before it had tried everything: %v; output:\n%s", r.Exit(), tail(r.out.String()))
	}
	if s.tried == 0 {
		r.t.Fatalf("the attack tried nothing; output:\n%s", tail(r.out.String()))
	}
	return s
}

// bait is a file of the host with a secret in it that everybody may read.
func bait(t *testing.T) (path, secret string) {
	t.Helper()
	dir := t.TempDir()
	path, secret = filepath.Join(dir, "bait"), "secret-"+filepath.Base(filepath.Dir(dir))+"-"+fmt.Sprint(time.Now().UnixNano())
	if err := os.WriteFile(path, []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	return path, secret
}
