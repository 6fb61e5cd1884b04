package server

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/export"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
	"github.com/ebb-run/ebb/internal/wire/s3"
	"github.com/ebb-run/ebb/internal/wire/ssm"
)

// Export writes tables, buckets and parameters as package export has them. An error that comes before anything is written leaves w alone.
func (s *Server) Export(ctx context.Context, c export.Choice, w io.Writer) error {
	_, err := export.Write(ctx, w, s.portable(), c, s.o.Version)
	return err
}

// Import reads what Export wrote. told hears now and then how far it is.
func (s *Server) Import(ctx context.Context, o export.Options, r io.Reader, told func(export.Result)) (export.Result, error) {
	return export.Read(ctx, r, s.portable(), o, told)
}

// appOf is the App in the ID of a Stack.
func appOf(stack string) string {
	parts := strings.Split(stack, "/")
	if len(parts) < 3 {
		return ""
	}
	return strings.Join(parts[1:len(parts)-1], "/")
}

// portable is what exports are of.
func (s *Server) portable() export.Stores {
	return export.Stores{
		Tenant: tenant, Tables: s.sharedTables(), Objects: s.sharedObjects(), Parameters: portableParameters{s},
		Codec: export.Codec{
			Properties: dynamodb.Properties, Item: dynamodb.ItemJSON, Exported: dynamodb.Exported, Fits: dynamodb.Fits,
			Declared: func(name string, properties []byte) (store.Table, error) {
				t, err := dynamodb.Declared(name, properties)
				if t.View != "" {
					t.Label = dynamodb.StreamLabel(&store.Table{Made: time.Now()})
				}
				return t, err
			},
		},
		TableApp:       func(t store.Table) string { return appOf(t.Owner) },
		BucketApp:      func(b store.Bucket) string { return appOf(string(b.Documents[ownerDocument])) },
		HiddenTable:    func(name string) bool { return name == relayed },
		HiddenDocument: func(name string) bool { return strings.HasPrefix(name, "ebb:") },
		ValidBucket:    s3.ValidBucket,
		BucketMade:     s.bucketChanged,
	}
}

type portableParameters struct{ s *Server }

// Each gives the newest values.
func (p portableParameters) Each(ctx context.Context, f func(export.Parameter) error) error {
	return p.s.parameters().Store.Each(ctx, tenant, func(data []byte) error {
		var one ssm.Parameter
		if err := json.Unmarshal(data, &one); err != nil || len(one.Versions) == 0 {
			return errs.New(errs.Failed, "the record of a parameter cannot be read")
		}
		return f(portableOf(&one))
	})
}

func portableOf(one *ssm.Parameter) export.Parameter {
	v := one.Versions[len(one.Versions)-1]
	return export.Parameter{Name: one.Name, App: one.App, Type: v.Type, Value: &v.Value, Text: v.Text, Pattern: v.Pattern, Tier: v.Tier, DataType: v.DataType, Tags: one.Tags}
}

// Put writes a parameter as a new version of it, unless the newest is the same.
func (p portableParameters) Put(ctx context.Context, in export.Parameter, overwrite bool) (out export.Outcome, err error) {
	err = p.s.parameters().Change(ctx, tenant, in.Name, func(old *ssm.Parameter) (*ssm.Parameter, error) {
		one := &ssm.Parameter{Name: in.Name, App: in.App, Tags: in.Tags}
		out = export.Written
		if old != nil {
			is := portableOf(old)
			switch {
			case is.Type == in.Type && *is.Value == *in.Value && is.Text == in.Text && is.Pattern == in.Pattern && maps.Equal(is.Tags, in.Tags):
				out = export.Same
				return nil, nil
			case !overwrite:
				out = export.Differs
				return nil, nil
			}
			one, out = old, export.Replaced
			one.Tags = in.Tags
		}
		return one, one.Add(ssm.Version{
			Type: in.Type, Value: *in.Value, Text: in.Text, Pattern: in.Pattern, Tier: in.Tier, DataType: in.DataType, At: time.Now().UTC(), By: "ebb data import",
		})
	})
	return out, err
}
