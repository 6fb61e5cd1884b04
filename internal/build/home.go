package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// withheldHome are what of a home no project's tool finds: credentials of clouds, which their clients look for by themselves.
var withheldHome = []string{".aws", ".boto"}

// PlainEnv is ToolEnv for a tool that is a plain program of this machine: its HOME is a folder in dir, made anew where it is missing, that has by
// links what the user's home has, but for AWS's profiles; clients of AWS are told that there are none, unless pass names the variables that say so.
func PlainEnv(environ, pass []string, dir string) ([]string, error) {
	env := childEnv(environ, pass)
	unless := func(name, value string) {
		if !slices.Contains(pass, name) {
			env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
			env = append(env, name+"="+value)
		}
	}
	unless("AWS_CONFIG_FILE", os.DevNull)
	unless("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	unless("AWS_EC2_METADATA_DISABLED", "true")
	i := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") })
	if i < 0 || slices.Contains(pass, "HOME") {
		return env, nil
	}
	users := strings.TrimPrefix(env[i], "HOME=")
	home := filepath.Join(dir, "home-"+hash(users)[:8])
	if err := linkHome(users, home); err != nil {
		return nil, fmt.Errorf("make a home for the project's tools: %w", err)
	}
	env[i] = "HOME=" + home
	return env, nil
}

// linkHome brings the links in a home up to date with the user's. What is there and no link was made by a tool, and stays. Several may do it at once.
func linkHome(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	want := map[string]bool{}
	for _, e := range entries {
		if !slices.Contains(withheldHome, e.Name()) {
			want[e.Name()] = true
		}
	}
	there, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, e := range there {
		name := e.Name()
		link, err := os.Readlink(filepath.Join(to, name))
		switch {
		case err != nil, want[name] && link == filepath.Join(from, name):
			delete(want, name)
		default:
			if err := os.Remove(filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
