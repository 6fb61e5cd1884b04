package build

import (
	"context"
	"io"
)

// Job is what tools do for one step of a build: programs, one after the other, on the same files.
type Job struct {
	Root    string // the project with all that belongs to it: its folder or one above; "" where none of it is needed
	Dir     string // where the programs run
	Steps   []Step
	Shows   []string // further files and folders that are read
	Writes  []string // folders, not among Root's own files, in which what is written stays
	Results []string // files and folders of Root that are brought back when all has gone well; what else is written in Root is thrown away
	Modules bool     // all folders node_modules below Dir are Results
	Offline bool     // nothing is connected to
	Git     bool     // the history is read, Root's .git
	Output  io.Writer
}

// Step is one program of a Job. All paths are absolute, and those of this machine.
type Step struct {
	Command []string
	Env     []string // the whole environment
	// Fetches says that the program only fetches and compiles: nothing of the project or of what it depends on runs in it. It may have
	// the credentials for registries, and the caches that projects share.
	Fetches bool
	// If says whether the step is needed, once those before it are done; nil means that it is. at gives where a path of Root is meanwhile.
	If func(at func(path string) string) bool
}

// Runner runs a Job where it can do no harm. An error that is none of the programs' (exit status) says why it could not.
type Runner func(ctx context.Context, j Job) error
