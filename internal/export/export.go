// Package export writes tables, buckets and parameters in forms that other tools read, and reads them back.
//
// Main functions: [Write] and [Read].
//
// An export is a tar archive:
//
//	ebb-export.json                     the Header
//	tables/NAME/table.json              the properties of AWS::DynamoDB::Table
//	tables/NAME/data/N.json.gz          Items, a line of DynamoDB JSON each; as AWS's "export to S3" has them, and the two manifests
//	tables/NAME/manifest-files.json     (DynamoDB guide, "DynamoDB table export output format")
//	tables/NAME/manifest-summary.json
//	buckets/NAME/bucket.json            versioning, tags, and the documents of the bucket
//	buckets/NAME/objects/KEY            data; what is said of an object is in the extended attribute user.ebb.object
//	parameters.jsonl                    a Parameter a line
//	end.json                            what was written
//
// Guarantees:
//
//  1. Memory does not grow with the number of Items or objects, nor with their sizes.
//  2. Read does the same when it is done again: what is there already and is the same stays untouched, so an import that broke off is begun anew.
//  3. Read overwrites nothing unless it is told to, and names what is there with another value.
//  4. What cannot be is refused with its file and line; what was read before it stays.
//  5. A table is written as it is at one moment. Tables and buckets of one export are not of the same moment: that is what backups are for.
//
// It knows no AWS JSON of its own (the Codec does), and nothing of HTTP. Messages in queues, events and versions of objects that are not the
// latest are not in an export: what is in flight would run twice.
package export

import (
	"archive/tar"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// Format is the version of the archive.
const Format = 1

// Codec is how tables and Items are written.
type Codec struct {
	Properties func(*store.Table) ([]byte, error)
	Declared   func(name string, properties []byte) (store.Table, error)
	Item       func(store.Item) []byte
	Exported   func(line []byte) (store.Item, error) // of a line
	Fits       func(*store.Table, store.Item) error
}

// Parameter is a parameter's newest value.
type Parameter struct {
	Name     string            `json:"name"`
	App      string            `json:"app,omitempty"` // the only one that sees it
	Type     string            `json:"type"`
	Value    *string           `json:"value,omitempty"` // absent where it is a secret
	Text     string            `json:"description,omitempty"`
	Pattern  string            `json:"allowedPattern,omitempty"`
	Tier     string            `json:"tier,omitempty"`
	DataType string            `json:"dataType,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// Outcome is what became of something that was read.
type Outcome int

// The outcomes.
const (
	Same     Outcome = iota // it was there already
	Written                 // it was not there
	Replaced                // it was there with another value
	Differs                 // it is there with another value, and stays
)

// Parameters keeps parameters.
type Parameters interface {
	Each(ctx context.Context, f func(Parameter) error) error
	// Put writes one that has a value. Without overwrite one with another value stays.
	Put(ctx context.Context, p Parameter, overwrite bool) (Outcome, error)
}

// Stores is where data come from and go to.
type Stores struct {
	Tenant     string
	Tables     store.Tables
	Objects    store.Objects
	Parameters Parameters
	Codec      Codec
	// Owner gives the App that declares a table or a bucket, "" for none.
	TableApp  func(store.Table) string
	BucketApp func(store.Bucket) string
	// Hidden says which documents of a bucket, and which tables, are the server's own.
	HiddenTable    func(name string) bool
	HiddenDocument func(name string) bool
	// ValidBucket says whether a bucket may have the name.
	ValidBucket func(name string) bool
	// BucketMade is called with a bucket that was made or whose documents changed.
	BucketMade func(ctx context.Context, id store.BucketID)
}

// Choice says what is written or read. Tables and Buckets name them; where both are empty all are meant, and parameters.
type Choice struct {
	App             string // only what this App declares
	Tables, Buckets []string
	Secrets         bool // values of parameters that are secrets
}

// all says whether nothing is chosen by name.
func (c *Choice) all() bool { return len(c.Tables)+len(c.Buckets) == 0 }

// Header is what an export says of itself.
type Header struct {
	Format  int       `json:"format"`
	Version string    `json:"version"`
	Begun   time.Time `json:"begun"`
	LeftOut string    `json:"leftOut"`
}

const leftOut = "messages in queues, events, schedules, functions and their deployments, versions of objects that are not the latest"

// Totals count what an export holds.
type Totals struct {
	Tables     int   `json:"tables"`
	Items      int64 `json:"items"`
	Buckets    int   `json:"buckets"`
	Objects    int64 `json:"objects"`
	Bytes      int64 `json:"bytes"` // of objects
	Parameters int64 `json:"parameters"`
	Withheld   int64 `json:"withheld"` // parameters whose value is a secret, and is not in it
}

const (
	headerName     = "ebb-export.json"
	tablesFolder   = "tables"
	bucketsFolder  = "buckets"
	parametersName = "parameters.jsonl"
	endName        = "end.json"
	// objectRecord is the extended header's name of an extended attribute, user.ebb.object, which tools know or pass over silently.
	objectRecord = "SCHILY.xattr.user.ebb.object"
)

// writer writes an archive.
type writer struct {
	Stores
	tar    *tar.Writer
	at     time.Time
	totals Totals
}

// Write writes an export to w. An error before anything is written leaves w alone.
func Write(ctx context.Context, w io.Writer, s Stores, c Choice, version string) (Totals, error) {
	tables, buckets, err := s.chosen(ctx, &c)
	if err != nil {
		return Totals{}, err
	}
	o := &writer{Stores: s, tar: tar.NewWriter(w), at: time.Now().UTC()}
	if err := o.json(headerName, Header{Format, version, o.at, leftOut}); err != nil {
		return o.totals, err
	}
	for i := range tables {
		if err := o.table(ctx, &tables[i]); err != nil {
			return o.totals, fmt.Errorf("export table %s: %w", tables[i].Name, err)
		}
	}
	for _, b := range buckets {
		if err := o.bucket(ctx, b); err != nil {
			return o.totals, fmt.Errorf("export bucket %s: %w", b.Name, err)
		}
	}
	if c.all() {
		if err := o.parameters(ctx, &c); err != nil {
			return o.totals, fmt.Errorf("export parameters: %w", err)
		}
	}
	if err := o.json(endName, o.totals); err != nil {
		return o.totals, err
	}
	return o.totals, o.tar.Close()
}

// chosen lists what is meant.
func (s *Stores) chosen(ctx context.Context, c *Choice) (tables []store.Table, buckets []store.Bucket, err error) {
	allTables, err := s.Tables.List(ctx, s.Tenant)
	if err != nil {
		return nil, nil, err
	}
	allBuckets, err := s.Objects.Buckets(ctx, s.Tenant)
	if err != nil {
		return nil, nil, err
	}
	var tableNames, bucketNames []string
	for _, t := range allTables {
		if s.HiddenTable(t.Name) || c.App != "" && s.TableApp(t) != c.App {
			continue
		}
		tableNames = append(tableNames, t.Name)
		if c.all() || slices.Contains(c.Tables, t.Name) {
			tables = append(tables, t)
		}
	}
	for _, b := range allBuckets {
		if c.App != "" && s.BucketApp(b) != c.App {
			continue
		}
		bucketNames = append(bucketNames, b.Name)
		if c.all() || slices.Contains(c.Buckets, b.Name) {
			buckets = append(buckets, b)
		}
	}
	for _, row := range []struct {
		what       string
		want, have []string
	}{{"table", c.Tables, tableNames}, {"bucket", c.Buckets, bucketNames}} {
		for _, name := range row.want {
			if slices.Contains(row.have, name) {
				continue
			}
			e := errs.New(errs.NotFound, "there is no %s %s", row.what, name)
			if near := diag.Nearest(name, row.have); near != "" {
				e = e.WithHint("Did you mean %s?", near)
			} else if len(row.have) > 0 && len(row.have) <= 20 {
				e = e.WithHint("There are %s.", strings.Join(row.have, ", "))
			}
			return nil, nil, e
		}
	}
	return tables, buckets, nil
}

// file writes a small file.
func (o *writer) file(name string, data []byte) error {
	if err := o.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: o.at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := o.tar.Write(data)
	return err
}

func (o *writer) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.file(name, append(data, '\n'))
}

// parameters writes those that an App sees; values of secrets only where they are asked for.
func (o *writer) parameters(ctx context.Context, c *Choice) error {
	var lines []byte
	err := o.Parameters.Each(ctx, func(p Parameter) error {
		if c.App != "" && p.App != c.App {
			return nil
		}
		if p.Type == "SecureString" && !c.Secrets {
			p.Value = nil
			o.totals.Withheld++
		}
		o.totals.Parameters++
		line, err := json.Marshal(p)
		lines = append(append(lines, line...), '\n')
		return err
	})
	if err != nil {
		return err
	}
	return o.file(parametersName, lines)
}

// manifestFile is a line of manifest-files.json.
type manifestFile struct {
	Count int64  `json:"itemCount"`
	MD5   string `json:"md5Checksum"` // in Base64
	Key   string `json:"dataFileS3Key"`
}

// manifestSummary is manifest-summary.json, as far as it says anything here.
type manifestSummary struct {
	Version string    `json:"version"`
	Type    string    `json:"exportType"`
	Table   string    `json:"tableArn,omitempty"`
	Begun   time.Time `json:"startTime,omitzero"`
	At      time.Time `json:"exportTime,omitzero"`
	Files   string    `json:"manifestFilesS3Key,omitempty"`
	Count   int64     `json:"itemCount"`
	Format  string    `json:"outputFormat"`
}

const dynamoJSON = "DYNAMODB_JSON"

func md5Text(data []byte) string {
	sum := md5.Sum(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// safeKey says whether a key is a path that every tool unpacks where it belongs.
func safeKey(key string) bool { return fs.ValidPath(key) && key != "." }
