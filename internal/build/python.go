package build

import (
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
)

func (b *builder) python(fs []*app.Function) {
	for _, f := range fs {
		r := newRules(f.Package.Patterns, f.Package.Only)
		t, err := artifact.Scan(b.base(f), b.files, r.keep)
		if err == nil {
			b.done(f, t, f.Handler)
		}
	}
}
func (b *builder) supplyPython(f *app.Function, t *artifact.Tree) {}
func (b *builder) provided(fs []*app.Function) {
	b.python(fs)
}
func (b *builder) layers() {}
