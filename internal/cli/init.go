package cli

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// Files that Go's own tools would take for part of this module end in .txt, which is cut on writing.
//
//go:embed starters
var starters embed.FS

func (c *command) initCommand() *cobra.Command {
	var template, name string
	cmd := &cobra.Command{
		Use:     "init [DIR]",
		Short:   "Write a starter project",
		Example: "  ebb init shop\n  ebb init shop --template python",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringVarP(&template, "template", "t", "node", "starter: "+strings.Join(starterNames(), ", "))
	cmd.Flags().StringVar(&name, "name", "", "name of the app (default: the folder's)")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		dir := c.Dir
		if len(a) > 0 {
			dir = c.abs(a[0])
		}
		if !slices.Contains(starterNames(), template) {
			e := errs.New(errs.Invalid, "there is no starter %q", template).WithHint("The starters are %s.", strings.Join(starterNames(), ", "))
			if near := diag.Nearest(template, starterNames()); near != "" {
				e = e.WithHint("Did you mean %s?", near)
			}
			return usageError{e}
		}
		if name == "" {
			name = appName(filepath.Base(dir))
		}
		files, err := writeStarter(dir, template, name)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]any{"dir": dir, "name": name, "files": files})
			return nil
		}
		for _, f := range files {
			fmt.Fprintln(c.Stdout, f)
		}
		next := "ebb up"
		if len(a) > 0 {
			next += " " + a[0]
		}
		c.say("next: %s", c.paint(bold, next))
		return nil
	}
	return cmd
}

func starterNames() []string {
	entries, err := starters.ReadDir("starters")
	if err != nil { // embedded: always there
		panic(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9-]+`)

func appName(folder string) string {
	n := strings.Trim(notInName.ReplaceAllString(folder, "-"), "-")
	if n == "" || n[0] < 'A' {
		n = strings.Trim("app-"+n, "-")
	}
	return n
}

// writeStarter writes nothing unless every file is new.
func writeStarter(dir, template, name string) ([]string, error) {
	root := path.Join("starters", template)
	contents := map[string][]byte{}
	var files []string
	err := fs.WalkDir(starters, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := starters.ReadFile(p)
		if err != nil {
			return err
		}
		rel := strings.TrimSuffix(strings.TrimPrefix(p, root+"/"), ".txt")
		if _, err := os.Lstat(filepath.Join(dir, rel)); !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Exists, "%s is already there; nothing was written", filepath.Join(dir, rel)).
				WithHint("Choose an empty folder: `ebb init NAME`.")
		}
		contents[rel] = []byte(strings.ReplaceAll(string(data), "{{name}}", name))
		files = append(files, rel)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, rel := range files {
		full := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return nil, errs.New(errs.Invalid, "write starter: %w", err)
		}
		if err := os.WriteFile(full, contents[rel], 0o644); err != nil {
			return nil, errs.New(errs.Invalid, "write starter: %w", err)
		}
	}
	return files, nil
}
