// Package frontend is the contract of reading a source format into an App.
//
// Main type: [Frontend]. One package below this one reads one format; package all
// lists them; package frontendtest runs the golden projects every one must pass.
//
// Guarantees of every implementation:
//
//  1. Detect reads at most a few small files and never runs anything.
//  2. Load collects every fault in one pass as located diagnostics; it returns a nil App
//     only together with at least one error.
//  3. What is declared and not understood is in the App (app.Foreign, a Trigger) or in a
//     diagnostic, never dropped in silence.
//  4. Load runs the project's own code only through Project.Exec and Project.Run.
//  5. Load reads no file that Project.MayRead refuses, the project's main file included.
package frontend

import (
	"context"
	"path/filepath"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// Project is a folder with a user's sources, and what its reader may use of the outside.
type Project struct {
	Root string                      // absolute path of the folder
	File string                      // the file to read, relative to Root; empty means the format's usual names
	Env  func(string) (string, bool) // the user's environment
	// Exec runs a program in the project (its own node, say) and returns what it printed on standard
	// output. nil means that running project code is not allowed.
	Exec func(ctx context.Context, name string, args ...string) ([]byte, error)
	// Run runs a program that makes files, and gives the folder of these relative to Root, with slashes. nil is as with Exec.
	Run func(ctx context.Context, t Tool) (dir string, err error)
	// Reads says whether a file that is there may be read for the project; an error says why not, with the mend as hint. nil allows what is
	// below Root. What the project names is asked about, not what the user does.
	Reads func(file string) error
	// Script makes one CommonJS module of a TypeScript file and what it imports of the project. nil means that there is nobody to do it.
	Script func(file string) (string, error)
}

// OutDir stands, in the arguments and the environment of a Tool, for the folder that it writes to.
const OutDir = "{out}"

// Tool is a program of the project that makes files. It may connect to package registries, and to nothing else; it has no credentials.
type Tool struct {
	Name string
	Args []string
	Env  []string // beside what every tool is given
	Out  string   // name of the folder it writes to, which is empty before
}

// MayRead asks Reads about a file, named by an absolute path.
func (p Project) MayRead(file string) error {
	if p.Reads != nil {
		return p.Reads(file)
	}
	root, err := filepath.EvalSymlinks(p.Root)
	if err != nil {
		return errs.New(errs.NotFound, "open project: %w", err)
	}
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return errs.New(errs.NotFound, "%w", err)
	}
	if rel, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(rel) {
		return errs.New(errs.Forbidden, "%s is outside of the project", filepath.Base(file))
	}
	return nil
}

// Options are the user's choices at load.
type Options struct {
	Stage   string            // empty means the project's default
	Region  string            // empty means the project's default
	Params  map[string]string // --param k=v
	EnvFile string            // further variables for ${env:}, dotenv format; empty means .env files as the format has them
	Account string            // the AWS account id of the Tenant, 12 digits
}

// Frontend reads one source format.
type Frontend interface {
	// Name is the format's name in messages: "serverless".
	Name() string
	// Detect returns the project's main file (relative to Root) if the folder holds this format.
	Detect(p Project) (file string, ok bool)
	// Load reads the project. Diagnostics without an error may come with a usable App.
	Load(ctx context.Context, p Project, o Options) (*app.App, diag.List)
}

// Registry is an ordered list of front-ends; the first that detects a project reads it.
type Registry []Frontend

// Find returns the front-end for the project, with Project.File set, or an error that lists what was looked for.
func (r Registry) Find(p Project) (Frontend, Project, error) {
	for _, f := range r {
		if file, ok := f.Detect(p); ok {
			p.File = file
			return f, p, nil
		}
	}
	return nil, p, errs.New(errs.NotFound, "no project found in %s", p.Root).
		WithHint("Run this in a folder with a serverless.yml, a template.yaml or a cdk.json, name such a folder, or start one with `ebb init`.")
}
