package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/backup"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
)

func (c *command) data() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Back up, restore, export and import what a server keeps",
		Long: "`ebb data backup` writes everything that a server keeps into one file, while it serves; `ebb data restore` makes a data directory of\n" +
			"it: deployments, code, tables, objects, events, queues, streams, schedules, secrets, keys and certificates.\n\n" +
			"`ebb data export` writes tables, buckets and parameters in forms that other tools read; `ebb data import` reads them into a running server.",
	}
	return group(cmd, c.dataBackup(), c.dataRestore(), c.dataExport(), c.dataImport())
}

func (c *command) dataBackup() *cobra.Command {
	var out, recipientsFile string
	var recipients []string
	cmd := &cobra.Command{
		Use:   "backup -o FILE",
		Short: "Write everything that a running server keeps into one file",
		Long: "Everything that was acknowledged before the command began is in the backup, and all of it is of one moment; writes wait for that\n" +
			"moment, and go on while the file is written. The file is there when it is whole, checked and on disk.\n\n" +
			"It holds secrets, and the keys that open them. With --recipient it is sealed: only who has the secret key of that (age, https://age-encryption.org)\n" +
			"can read it. Not in it are what functions have printed, certificates given by --tls-cert, and settings.",
		Example: "  ebb data backup -o monday.tar\n  ebb data backup -o /backups/ --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
		Args:    args(noArgs),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write; in a folder, or with a / at the end, its name is made of the time")
	cmd.Flags().StringSliceVarP(&recipients, "recipient", "r", nil, "public key that the backup is sealed for, age1…; may be repeated")
	cmd.Flags().StringVar(&recipientsFile, "recipients-file", "", "file with such keys, one a line")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return usageError{errs.New(errs.Invalid, "where is the backup to be written?").WithHint("Give a file or a folder with -o.")}
		}
		keys := strings.Join(recipients, "\n")
		if recipientsFile != "" {
			data, err := os.ReadFile(c.abs(recipientsFile))
			if err != nil {
				return errs.New(errs.NotFound, "read --recipients-file: %w", err)
			}
			keys += "\n" + string(data)
		}
		sealed := recipientsFile != "" || len(recipients) > 0
		to, err := c.backupFile(out, sealed)
		if err != nil {
			return err
		}
		found, err := c.takeBackup(cmd.Context(), to, keys, sealed)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]any{"event": "backup", "file": to, "sealed": sealed, "moment": found.Moment, "files": found.Files, "bytes": found.Bytes})
		} else {
			c.say("backed up %s, %s, as of %s: %s", count(int(found.Files), "file"), amount(found.Bytes), found.Moment.Local().Format(time.DateTime), to)
		}
		if !sealed {
			c.say("%s %s is not sealed: who reads it has every secret, key and record of this server. Keep it where nobody else reads, or seal the next one with --recipient.",
				c.paint(yellow, "warning:"), to)
		}
		return nil
	}
	return cmd
}

// backupFile is where a backup goes; nothing may be there.
func (c *command) backupFile(out string, sealed bool) (string, error) {
	to := c.abs(out)
	info, err := os.Stat(to)
	folder := strings.HasSuffix(out, string(filepath.Separator))
	if folder || err == nil && info.IsDir() {
		name := "ebb-backup-" + time.Now().UTC().Format("20060102T150405Z") + ".tar"
		if sealed {
			name += ".age"
		}
		to = filepath.Join(to, name)
	}
	if _, err := os.Lstat(to); err == nil {
		return "", errs.New(errs.Exists, "%s is there already", to).WithHint("Give another name with -o, or a folder.")
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", errs.New(errs.Invalid, "make folder of the backup: %w", err)
	}
	return to, nil
}

// takeBackup writes the stream of a Node to a file, and checks it on its way.
func (c *command) takeBackup(ctx context.Context, to, keys string, sealed bool) (found backup.Found, err error) {
	recipients, err := backup.Recipients(keys)
	if sealed && err != nil {
		return found, usageError{err}
	}
	client, err := c.client()
	if err != nil {
		return found, err
	}
	in, err := client.Backup(ctx)
	if err != nil {
		return found, err
	}
	defer func() { _ = in.Close() }()
	// Nothing but a rename is left to do when it has its name.
	f, err := os.OpenFile(to+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return found, errs.New(errs.Invalid, "write backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	defer func() { _ = f.Close() }()
	var w io.WriteCloser = f
	if sealed {
		if w, err = backup.Seal(f, recipients); err != nil {
			return found, fmt.Errorf("seal backup: %w", err)
		}
	}
	show := c.moving("backing up")
	defer show.clear()
	checked := &moved{Reader: io.TeeReader(in, w), show: show}
	if found, err = backup.Read(ctx, checked, nil); err != nil {
		return found, err
	}
	if sealed {
		err = w.Close()
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(to))
	}
	if err != nil {
		return found, fmt.Errorf("write backup: %w", err)
	}
	return found, nil
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (c *command) dataRestore() *cobra.Command {
	var data, identity string
	var force, check bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data directory of a backup",
		Long: "All of the backup is read and checked first; only then the data directory is there. `ebb serve` on it goes on from the moment of the\n" +
			"backup: what was running then runs again, and events that have come to an end since come again.",
		Example: "  ebb data restore monday.tar --data /var/lib/ebb\n  ebb data restore monday.tar.age --identity key.txt --data /var/lib/ebb\n  ebb data restore monday.tar --check",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory to make; it must not exist or be empty (default: that of ebb serve)")
	cmd.Flags().StringVarP(&identity, "identity", "i", "", "file with the secret key of a sealed backup")
	cmd.Flags().BoolVar(&force, "force", false, "move aside what is in the data directory; nothing is deleted")
	cmd.Flags().BoolVar(&check, "check", false, "only read and check the backup")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		dir := c.defaultData()
		if v, ok := c.Env("EBB_DATA"); ok && v != "" {
			dir = c.abs(v)
		}
		if data != "" {
			dir = c.abs(data)
		}
		in, size, err := c.openBackup(a[0])
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		show := c.moving("reading")
		show.all = size
		defer show.clear()
		in.Reader = &moved{Reader: in.Reader, show: show}
		plain, err := in.plain(c, identity)
		if err != nil {
			return err
		}
		if check {
			found, err := backup.Read(cmd.Context(), plain, nil)
			if err != nil {
				return err
			}
			show.clear()
			c.restored("checked", backup.Restored{Found: found}, "")
			return nil
		}
		if err := server.Unused(dir); err != nil {
			return err
		}
		out, err := backup.Restore(cmd.Context(), plain, dir, force, nil)
		if err != nil {
			return err
		}
		show.clear()
		c.restored("restored", out, dir)
		return nil
	}
	return cmd
}

// restored tells what became of a backup.
func (c *command) restored(what string, r backup.Restored, dir string) {
	if c.json {
		c.printJSON(map[string]any{"event": what, "data": dir, "moment": r.Moment, "version": r.Version, "files": r.Files, "bytes": r.Bytes, "aside": r.Aside})
		return
	}
	c.say("%s %s, %s, as of %s, of ebb %s", what, count(int(r.Files), "file"), amount(r.Bytes), r.Moment.Local().Format(time.DateTime), r.Version)
	if r.Aside != "" {
		c.say("what was in %s is in %s", dir, r.Aside)
	}
	if dir != "" {
		c.say("serve it with `ebb serve --data %s`", dir)
	}
}

// backupInput is a file that is read as a backup.
type backupInput struct {
	io.Reader
	f *os.File
}

func (b *backupInput) Close() error { return b.f.Close() }

func (c *command) openBackup(name string) (*backupInput, int64, error) {
	f, err := os.Open(c.abs(name))
	if err != nil {
		return nil, 0, errs.New(errs.NotFound, "read backup: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = errs.New(errs.Invalid, "%s is a folder", f.Name()).WithHint("Name the file in it.")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return &backupInput{f, f}, info.Size(), nil
}

// plain gives it unsealed.
func (b *backupInput) plain(c *command, identity string) (io.Reader, error) {
	text := ""
	if identity != "" {
		data, err := os.ReadFile(c.abs(identity))
		if err != nil {
			return nil, errs.New(errs.NotFound, "read --identity: %w", err)
		}
		if text = string(data); strings.TrimSpace(text) == "" {
			return nil, errs.New(errs.Invalid, "--identity %s is empty", identity)
		}
	}
	plain, _, err := backup.Unseal(b, text)
	return plain, err
}

// moving shows on a terminal how much has come through, once it takes a while.
type moving struct {
	c     *command
	what  string
	begun time.Time
	all   int64 // bytes; 0 where it is not known
	mu    struct {
		sync.Mutex
		last  time.Time // when it was shown; zero while it is not
		done  int64
		ended bool
	}
}

func (c *command) moving(what string) *moving { return &moving{c: c, what: what, begun: time.Now()} }

func (m *moving) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.done += int64(n)
	now := time.Now()
	if m.mu.ended || !m.c.Terminal || m.c.json || now.Sub(m.begun) < 500*time.Millisecond || now.Sub(m.mu.last) < 100*time.Millisecond {
		return
	}
	m.mu.last = now
	of := ""
	if m.all > 0 {
		of = " of " + amount(m.all)
	}
	fmt.Fprintf(m.c.Stderr, "\r\x1b[K  %s: %s%s", m.what, amount(m.mu.done), of)
}

// clear takes the line away for good.
func (m *moving) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.last.IsZero() {
		fmt.Fprint(m.c.Stderr, "\r\x1b[K")
		m.mu.last = time.Time{}
	}
	m.mu.ended = true
}

// moved shows what is read from it.
type moved struct {
	io.Reader
	show *moving
}

func (m *moved) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.show.add(n)
	return n, err
}

// amount is a number of bytes for people.
func amount(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
