package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/export"
)

func (c *command) dataExport() *cobra.Command {
	var choice export.Choice
	var out string
	cmd := &cobra.Command{
		Use:   "export -o FILE.tar",
		Short: "Write tables, buckets and parameters in forms that other tools read",
		Long: "A tar archive: of each table its properties as CloudFormation has them and its items as DynamoDB's export to S3 writes them; of each bucket\n" +
			"its objects by their keys; and parameters. Not in it are messages in queues, events, schedules, deployments and older versions of objects:\n" +
			"all of a server is in `ebb data backup`. Each table is of one moment, but two tables are not of the same.\n\n" +
			"Values of parameters of the type SecureString are left out unless --with-secrets is given. Secrets of Secrets Manager are in backups alone.",
		Example: "  ebb data export -o all.tar\n  ebb data export --app shop --table orders --bucket pictures -o shop.tar",
		Args:    args(noArgs),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	cmd.Flags().StringVar(&choice.App, "app", "", "only what this app declares")
	cmd.Flags().StringSliceVar(&choice.Tables, "table", nil, "only this table; may be repeated")
	cmd.Flags().StringSliceVar(&choice.Buckets, "bucket", nil, "only this bucket; may be repeated")
	cmd.Flags().BoolVar(&choice.Secrets, "with-secrets", false, "also the values of parameters that are secrets, in clear")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return usageError{errs.New(errs.Invalid, "where is the export to be written?").WithHint("Give a file with -o.")}
		}
		to := c.abs(out)
		if _, err := os.Lstat(to); err == nil {
			return errs.New(errs.Exists, "%s is there already", to).WithHint("Give another name with -o.")
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		in, err := client.Export(cmd.Context(), choice)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		show := c.moving("exporting")
		defer show.clear()
		totals, err := writeExport(cmd.Context(), to, &moved{Reader: in, show: show})
		if err != nil {
			return err
		}
		show.clear()
		if c.json {
			c.printJSON(map[string]any{"event": "export", "file": to, "totals": totals})
			return nil
		}
		c.say("exported %s with %d items, %s with %d objects (%s), %s: %s", count(totals.Tables, "table"), totals.Items, count(totals.Buckets, "bucket"), totals.Objects,
			amount(totals.Bytes), count(int(totals.Parameters), "parameter"), to)
		if totals.Withheld > 0 {
			c.say("the values of %s are left out: they are secrets, and --with-secrets writes them", count(int(totals.Withheld), "parameter"))
		}
		return nil
	}
	return cmd
}

// writeExport writes the file, which has its name when it is whole and on disk.
func writeExport(ctx context.Context, to string, in io.Reader) (totals export.Totals, err error) {
	f, err := os.OpenFile(to+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return totals, errs.New(errs.Invalid, "write export: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	defer func() { _ = f.Close() }()
	if totals, err = export.Check(io.TeeReader(in, f)); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return totals, err
	}
	if err = errors.Join(f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(to))
	}
	if err != nil {
		return totals, fmt.Errorf("write export: %w", err)
	}
	return totals, nil
}

func (c *command) dataImport() *cobra.Command {
	var o export.Options
	cmd := &cobra.Command{
		Use:   "import FILE.tar|DIR",
		Short: "Read what `ebb data export` wrote, or a table's export to S3",
		Long: "Tables and buckets that are not there are made; those that are keep their settings. What is there already and is the same is passed over, so\n" +
			"an import that broke off is simply begun again. What is there with another value stays, is named, and makes the command fail;\n" +
			"--overwrite replaces it. What is written is a change like any other: streams and notifications tell of it.\n\n" +
			"DIR is the folder of a full export of a table to S3 in the format DYNAMODB_JSON, for the one --table given, which must be there.",
		Example: "  ebb data import all.tar\n  aws s3 cp --recursive s3://exports/AWSDynamoDB/01700000000000-1a2b3c4d orders-export\n  ebb data import orders-export --table orders",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringSliceVar(&o.Tables, "table", nil, "only this table; may be repeated")
	cmd.Flags().StringSliceVar(&o.Buckets, "bucket", nil, "only this bucket; may be repeated")
	cmd.Flags().BoolVar(&o.Overwrite, "overwrite", false, "replace what is there with another value")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		show := c.moving("importing")
		defer show.clear()
		in, err := c.importInput(a[0], &o, show)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		client, err := c.client()
		if err != nil {
			return err
		}
		result, err := client.Import(cmd.Context(), o, &moved{Reader: in, show: show}, nil)
		show.clear()
		if !c.json || err == nil {
			c.imported(result)
		}
		if err != nil {
			return err
		}
		if n := result.Left(); n > 0 {
			return errs.New(errs.Conflict, "%d of what the import holds stand with another value, and stay as they are", n).WithHint("--overwrite replaces them.")
		}
		return nil
	}
	return cmd
}

// imported tells what became of an import.
func (c *command) imported(r export.Result) {
	if c.json {
		c.printJSON(map[string]any{"event": "import", "result": r})
		return
	}
	line := func(what string, n export.Count) {
		if n != (export.Count{}) {
			c.say("%s: %d written, %d the same, %d replaced, %d with another value", what, n.Written, n.Same, n.Replaced, n.Differs)
		}
	}
	if r.Tables+r.Buckets > 0 {
		c.say("made %s and %s", count(r.Tables, "table"), count(r.Buckets, "bucket"))
	}
	line("items", r.Items)
	line("objects", r.Objects)
	line("parameters", r.Parameters)
	if r.Withheld > 0 {
		c.say("%s without a value left out", count(int(r.Withheld), "parameter"))
	}
	for _, d := range r.Differing {
		c.say("  another value: %s", d)
	}
}

// importInput opens what is to be sent. The folder of an export to S3 is made an export on its way.
func (c *command) importInput(name string, o *export.Options, show *moving) (io.ReadCloser, error) {
	path := c.abs(name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, errs.New(errs.NotFound, "read export: %w", err)
	}
	if !info.IsDir() {
		show.all = info.Size()
		f, err := os.Open(path)
		if err != nil {
			return nil, errs.New(errs.NotFound, "read export: %w", err)
		}
		return f, nil
	}
	if len(o.Tables) != 1 || len(o.Buckets) > 0 {
		return nil, usageError{errs.New(errs.Invalid, "%s is a folder: into which table is it to be read?", path).WithHint("Give the one with --table.")}
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(export.FromS3(w, path, o.Tables[0])) }()
	// What is wrong with the folder is found before anything is sent.
	first := make([]byte, 512)
	n, err := io.ReadFull(r, first)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first[:n]), r), r}, nil
}
