package cli

import (
	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/server"
)

func (c *command) keysSealNew() *cobra.Command {
	return &cobra.Command{
		Use:   "seal-new FILE",
		Short: "Make a key that seals a server's data at rest",
		Long: "Writes a random key of 32 bytes to FILE, which only you can read. A new data directory is sealed with it by --seal-key-file FILE of\n" +
			"`ebb serve` and `ebb up`, and opened with it from then on. Without the key nothing in the data directory can be read: keep a copy\n" +
			"apart from it. A file that is there is never replaced.",
		Example: "  ebb keys seal-new /etc/ebb/seal.key\n  ebb serve --seal-key-file /etc/ebb/seal.key",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			path := c.abs(a[0])
			if err := seal.NewKeyFile(path); err != nil {
				return err
			}
			if c.json {
				c.printJSON(map[string]string{"file": path})
				return nil
			}
			c.say("%s is made. Keep a copy of it apart from the data: without it that cannot be read.", a[0])
			return nil
		},
	}
}

func (c *command) keysSealRotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seal-rotate OLD NEW",
		Short: "Let another key open a sealed data directory",
		Long: "OLD and NEW are key files (`ebb keys seal-new`). The server is stopped meanwhile, and is started with NEW afterwards. What is sealed is\n" +
			"not written again: who has OLD and an older copy of the data directory's file SEAL can read it still.",
		Example: "  ebb keys seal-new new.key\n  ebb keys seal-rotate old.key new.key --data /var/lib/ebb",
		Args:    args(cobra.ExactArgs(2)),
	}
	data := cmd.Flags().String("data", "", "data directory (default: that of ebb serve)")
	cmd.RunE = func(_ *cobra.Command, a []string) error {
		old, err := seal.ReadKey(c.abs(a[0]))
		if err != nil {
			return err
		}
		next, err := seal.ReadKey(c.abs(a[1]))
		if err != nil {
			return err
		}
		dir := c.defaultData()
		if v, ok := c.Env("EBB_DATA"); ok && v != "" {
			dir = c.abs(v)
		}
		if *data != "" {
			dir = c.abs(*data)
		}
		if err := server.RotateSeal(dir, old, next); err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]string{"data": dir})
			return nil
		}
		c.say("%s is opened by %s from now on. Remove %s when no backup needs it.", dir, a[1], a[0])
		return nil
	}
	return cmd
}
