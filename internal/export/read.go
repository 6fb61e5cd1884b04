package export

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// Options say how an export is read.
type Options struct {
	Tables, Buckets []string // only these; where both are empty everything, parameters too
	Overwrite       bool     // what is there with another value

	oneMost, partSize int64 // in tests; 0 is the usual
}

// Count is what became of things of one kind.
type Count struct {
	Written  int64 `json:"written"`
	Same     int64 `json:"same"`
	Replaced int64 `json:"replaced"`
	Differs  int64 `json:"differs"`
}

func (c *Count) add(o Outcome) {
	switch o {
	case Same:
		c.Same++
	case Written:
		c.Written++
	case Replaced:
		c.Replaced++
	case Differs:
		c.Differs++
	}
}

// Result is what became of an export.
type Result struct {
	Tables     int   `json:"tables"`  // that were made
	Buckets    int   `json:"buckets"` // that were made
	Items      Count `json:"items"`
	Objects    Count `json:"objects"`
	Parameters Count `json:"parameters"`
	Withheld   int64 `json:"withheld"` // parameters without a value
	// Differing names some of what is there with another value, and stays.
	Differing []string `json:"differing,omitempty"`
}

// Left is how many things stand with another value.
func (r *Result) Left() int64 { return r.Items.Differs + r.Objects.Differs + r.Parameters.Differs }

const maxDiffering = 20

func (r *Result) differs(what string) {
	if len(r.Differing) < maxDiffering {
		r.Differing = append(r.Differing, what)
	}
}

// limits of what is read whole, in bytes
const (
	maxSmall = 16 << 20
	maxLine  = 4 << 20 // an Item of 400 KB, each byte of it escaped
)

// reader reads an archive.
type reader struct {
	Stores
	o      Options
	tar    *tar.Reader
	count  *counter
	told   func(Result)
	result Result
	read   Totals
	tables map[string]*tableIn
	known  map[string]bool // buckets that are there
	ended  bool
}

// counter knows how far an archive was read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Read reads an export. told, where given, hears now and then how far it is. What was read before an error stays.
func Read(ctx context.Context, r io.Reader, s Stores, o Options, told func(Result)) (Result, error) {
	in := &reader{Stores: s, o: o, count: &counter{r: r}, told: told, tables: map[string]*tableIn{}, known: map[string]bool{}}
	in.tar = tar.NewReader(in.count)
	in.o.oneMost, in.o.partSize = cmp.Or(o.oneMost, oneMost), cmp.Or(o.partSize, partSize)
	if in.told == nil {
		in.told = func(Result) {}
	}
	err := in.header()
	for err == nil && !in.ended {
		err = in.next(ctx)
	}
	return in.result, err
}

// at gives an error the place in the archive; one that says what is to be done stays what it is.
func at(place string, err error) error {
	var e *errs.Error
	if errors.As(err, &e) {
		return errs.New(e.Code, "%s: %w", place, err).WithHint("%s", errs.HintOf(err))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.New(errs.Invalid, "%s: it ends in the middle", place).WithHint("%s", again)
	}
	return fmt.Errorf("%s: %w", place, err)
}

const again = "What was read stays. Import a whole export: what is there already is passed over."

func invalid(place, format string, args ...any) error {
	return errs.New(errs.Invalid, "%s: %s", place, fmt.Sprintf(format, args...)).WithHint("%s", again)
}

func (in *reader) header() error {
	h, err := in.tar.Next()
	if err != nil || h.Name != headerName {
		if errors.Is(err, context.Canceled) {
			return err
		}
		return errs.New(errs.Invalid, "this is no export of ebb: it does not begin with %s", headerName).
			WithHint("`ebb data import` reads what `ebb data export` wrote, and with --table the folder of a table's export to S3. A backup is restored by `ebb data restore`.")
	}
	var head Header
	if err := in.json(h, &head); err != nil || head.Format < 1 {
		return invalid(headerName, "it is not to be understood")
	}
	if head.Format > Format {
		return errs.New(errs.Unsupported, "the export has format %d; this ebb knows up to %d", head.Format, Format).
			WithHint("Use the ebb that wrote it (%s), or a newer one.", head.Version)
	}
	return nil
}

func (in *reader) json(h *tar.Header, v any) error {
	data, err := in.small(h)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return invalid(h.Name, "it is not the JSON that belongs here: %v", err)
	}
	return nil
}

func (in *reader) small(h *tar.Header) ([]byte, error) {
	if h.Size > maxSmall {
		return nil, invalid(h.Name, "%d bytes are more than %d", h.Size, maxSmall)
	}
	data, err := io.ReadAll(in.tar)
	if err != nil {
		return nil, at(h.Name, err)
	}
	return data, nil
}

// next reads one entry.
func (in *reader) next(ctx context.Context) error {
	h, err := in.tar.Next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return invalid(fmt.Sprintf("byte %d", in.count.n), "the export ends here, before its end")
	case err != nil && !errors.Is(err, context.Canceled):
		return at(fmt.Sprintf("byte %d", in.count.n), err)
	case err != nil:
		return err
	case h.Typeflag == tar.TypeDir:
		return nil
	case h.Typeflag != tar.TypeReg:
		return invalid(h.Name, "it is no plain file")
	}
	folder, rest, _ := strings.Cut(h.Name, "/")
	name, file, _ := strings.Cut(rest, "/")
	switch {
	case h.Name == endName:
		return in.end(h)
	case h.Name == parametersName:
		return in.parameters(ctx, h)
	case folder == tablesFolder && file != "":
		if in.wants(in.o.Tables, name) {
			err = in.table(ctx, h, name, file)
		}
	case folder == bucketsFolder && file != "":
		if in.wants(in.o.Buckets, name) {
			err = in.bucket(ctx, h, name, file)
		}
	default:
		err = invalid(h.Name, "it has no place in an export")
	}
	in.told(in.result)
	return err
}

func (in *reader) wants(names []string, name string) bool {
	return len(in.o.Tables)+len(in.o.Buckets) == 0 || slices.Contains(names, name)
}

func (in *reader) parameters(ctx context.Context, h *tar.Header) error {
	if len(in.o.Tables)+len(in.o.Buckets) > 0 {
		return nil
	}
	lines := bufio.NewScanner(in.tar)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		place := fmt.Sprintf("%s:%d", h.Name, n)
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var p Parameter
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil || p.Name == "" {
			return invalid(place, "this is no parameter: %v", err)
		}
		in.read.Parameters++
		if p.Value == nil {
			in.result.Withheld++
			continue
		}
		out, err := in.Parameters.Put(ctx, p, in.o.Overwrite)
		if err != nil {
			return at(place, err)
		}
		if in.result.Parameters.add(out); out == Differs {
			in.result.differs("parameter " + p.Name)
		}
	}
	if err := lines.Err(); err != nil {
		return at(fmt.Sprintf("%s:%d", h.Name, n+1), err)
	}
	return nil
}

// end compares what was read with what was written.
func (in *reader) end(h *tar.Header) error {
	var want Totals
	if err := in.json(h, &want); err != nil {
		return err
	}
	in.ended = true
	for name, t := range in.tables {
		if len(t.files) > 0 && !t.listed {
			return invalid(tablesFolder+"/"+name, "%s is missing", filesManifest)
		}
	}
	if len(in.o.Tables)+len(in.o.Buckets) > 0 || want == (Totals{}) {
		return nil
	}
	if want.Items != in.read.Items || want.Objects != in.read.Objects || want.Bytes != in.read.Bytes || want.Parameters != in.read.Parameters {
		return invalid(h.Name, "%d items, %d objects of %d bytes and %d parameters were read; %d, %d of %d and %d were written",
			in.read.Items, in.read.Objects, in.read.Bytes, in.read.Parameters, want.Items, want.Objects, want.Bytes, want.Parameters)
	}
	return nil
}

// bucketIn makes a bucket that is not there.
func (in *reader) bucketIn(ctx context.Context, place string, id store.BucketID, f bucketFile) error {
	if in.known[id.Name] {
		return nil
	}
	if !in.ValidBucket(id.Name) {
		return invalid(place, "%q is no name of a bucket", id.Name)
	}
	for name := range f.Documents {
		if in.HiddenDocument(name) {
			return invalid(place, "a bucket has no document %q of its own", name)
		}
	}
	err := in.Objects.CreateBucket(ctx, id, store.Bucket{Versioning: store.Versioning(f.Versioning), Tags: f.Tags, Documents: f.Documents})
	if errors.Is(err, store.ErrBucketExists) {
		in.known[id.Name] = true
		return nil
	}
	if err != nil {
		return at(place, err)
	}
	in.known[id.Name] = true
	in.result.Buckets++
	in.BucketMade(ctx, id)
	return nil
}
