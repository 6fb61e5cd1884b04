package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/identity"
)

func (c *command) keys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Let others call this server, and see who may",
		Long: "A key lets its holder call the control API of a server from elsewhere, over TLS. It is shown once, when it is made; the server keeps\n" +
			"only a hash. On the server's own machine no key is needed to make the first one.\n\n" +
			"Roles: read sees what is deployed, its logs and metrics; invoke calls functions, publishes events and sends messages; deploy does both, uploads, deploys, rolls back and\n" +
			"removes; admin does everything, keys too.",
	}
	return group(cmd, c.keysCreate(), c.keysList(), c.keysRevoke(), c.keysRotate(), c.keysCA(), c.keysSealNew(), c.keysSealRotate())
}

func (c *command) keysCreate() *cobra.Command {
	var role, expires, appName string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make a key and print it, this once",
		Long:    "Prints the key alone on standard output. NAME says who or what will use it; it stands in the history of deployments.",
		Example: "  ebb keys create ci --expires 90d > ci.key\n  ebb keys create monitor --role read\n  ebb keys create shop-ci --app shop",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&role, "role", string(identity.Deploy), "what it may do: admin, deploy, invoke, read")
	cmd.Flags().StringVar(&expires, "expires", "90d", "how long it works: 12h, 90d, or never")
	cmd.Flags().StringVar(&appName, "app", "", "the only app it reaches (default: all)")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		life, err := parseLife(expires)
		if err != nil {
			return usageError{fmt.Errorf("--expires %q: want 12h, 90d or never", expires)}
		}
		if _, err := identity.ParseRole(role); err != nil {
			return usageError{err}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		k, err := client.CreateKey(cmd.Context(), api.KeyRequest{Name: a[0], Role: role, App: appName, Life: life, By: userName()})
		if err != nil {
			return err
		}
		c.printNewKey(k)
		return nil
	}
	return cmd
}

// printNewKey prints the secret, the one time that it is known.
func (c *command) printNewKey(k *api.NewKey) {
	if c.json {
		c.printJSON(k)
		return
	}
	fmt.Fprintln(c.Stdout, k.Key)
	until := "until it is revoked"
	if k.Expires != nil {
		until = "until " + k.Expires.Local().Format(time.DateTime)
	}
	c.say("key %s (%s), role %s, works %s. It is not shown again.", k.ID, k.Name, k.Role, until)
	c.say("Its holder puts it into EBB_KEY or a file for --key-file, or keeps it with `ebb login`.")
}

func (c *command) keysList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "Show the keys, without what opens them", Args: args(noArgs)}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.Keys(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]any{"keys": list})
			return nil
		}
		if len(list) == 0 {
			c.say("there are no keys")
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		for _, k := range list {
			scope, ends, used := "all apps", "never expires", "never used"
			if k.App != "" {
				scope = "app " + k.App
			}
			if k.Expires != nil {
				ends = "expires " + k.Expires.Local().Format(time.DateOnly)
			}
			if k.Ended != "" {
				ends = k.Ended
			}
			if k.Used != nil {
				used = "used " + k.Used.Local().Format("2006-01-02 15h")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Role, scope, ends, used)
		}
		return w.Flush()
	}
	return cmd
}

func (c *command) keysRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End a key at once", Long: "The next call with the key is refused, on connections that are open too.",
		Args: args(cobra.ExactArgs(1)),
	}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		if err := client.RevokeKey(cmd.Context(), a[0]); err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]string{"revoked": a[0]})
		} else {
			fmt.Fprintf(c.Stdout, "revoked %s\n", a[0])
		}
		return nil
	}
	return cmd
}

func (c *command) keysRotate() *cobra.Command {
	var overlap string
	cmd := &cobra.Command{
		Use:   "rotate [ID]",
		Short: "Replace a key by a new one with the same name, role, app and life",
		Long: "Prints the new key. The old one works for --overlap more, so that its holders can change over; with 0 it is revoked at once.\n" +
			"Without ID the key that the command itself uses is replaced.",
		Example: "  ebb keys rotate 0h3k9w2m5xt7q\n  ebb keys rotate 0h3k9w2m5xt7q --overlap 0",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long the old key works on: 0, 24h, 7d")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		d, err := parseLife(overlap)
		if err != nil && overlap != "0" || overlap == never {
			return usageError{fmt.Errorf("--overlap %q: want 0, 24h or 7d", overlap)}
		}
		id := "self"
		if len(a) > 0 {
			id = a[0]
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		k, err := client.RotateKey(cmd.Context(), id, d, userName())
		if err != nil {
			return err
		}
		c.printNewKey(k)
		if !c.json {
			if d == 0 {
				c.say("It replaces %s, which is revoked.", k.Replaces)
			} else {
				c.say("It replaces %s, which works for %s more.", k.Replaces, overlap)
			}
		}
		return nil
	}
	return cmd
}

func (c *command) keysCA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Print the CA of a server with --tls-self-signed",
		Long: "Prints the certificate, PEM, on standard output and its fingerprint on standard error. Keys of such a server name the CA, so ebb itself\n" +
			"needs no file; browsers, curl (--cacert) and a key made before the CA do.",
		Example: "  ebb keys ca > ca.pem",
		Args:    args(noArgs),
	}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		ca, err := client.CA(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(ca)
			return nil
		}
		fmt.Fprint(c.Stdout, ca.PEM)
		c.say("fingerprint, as in keys:    %s", ca.Fingerprint)
		if b, _ := pem.Decode([]byte(ca.PEM)); b != nil {
			sum := sha256.Sum256(b.Bytes)
			var pairs []string
			for _, x := range sum {
				pairs = append(pairs, strings.ToUpper(hex.EncodeToString([]byte{x})))
			}
			c.say("fingerprint, as by openssl: %s", strings.Join(pairs, ":"))
		}
		return nil
	}
	return cmd
}

const never = "never"

// parseLife reads how long something lasts: as Go writes it, in days, or never, which is 0.
func parseLife(s string) (time.Duration, error) {
	if s == never {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if n, ok := strings.CutSuffix(s, "d"); ok {
		var days int
		if days, err = strconv.Atoi(n); err == nil && days > 36500 {
			err = errors.New("too long")
		}
		d = time.Duration(days) * 24 * time.Hour
	}
	if err == nil && d <= 0 {
		err = errors.New("not above zero")
	}
	return d, err
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
