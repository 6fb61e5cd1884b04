package lambda_test

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func TestCode_TemplateIsForWhatBootsAlike(t *testing.T) {
	t.Parallel()
	p := protocol(t)
	for _, c := range []struct {
		name   string
		change func(u *guest.Unit)
		want   string // of the template's environment; "-" for no template
	}{
		{"as it is", func(u *guest.Unit) {}, "LANG=en_US.UTF-8"},
		{"its own variables", func(u *guest.Unit) {
			u.Env = []string{"A=b", "TZ=Asia/Tokyo", "PATH=/x", "LC_ALL=C", "LANG=C", "HOME=/tmp"}
		}, "LANG=C LC_ALL=C HOME=/tmp"},
		{"a search path", func(u *guest.Unit) { u.Env = []string{"PYTHONPATH=/var/task/lib:/opt/x"} }, "LANG=en_US.UTF-8"},
		{"a relative search path", func(u *guest.Unit) { u.Env = []string{"PYTHONPATH=lib"} }, "-"},
		{"an empty part of one", func(u *guest.Unit) { u.Env = []string{"PYTHONPATH=/a::/b"} }, "-"},
		{"the same twice", func(u *guest.Unit) { u.Env = []string{"PYTHONPATH=/a:/a"} }, "-"},
		{"an unclean one", func(u *guest.Unit) { u.Env = []string{"PYTHONPATH=/a/"} }, "-"},
		{"a hash seed", func(u *guest.Unit) { u.Env = []string{"PYTHONHASHSEED=0"} }, "-"},
		{"unbuffered", func(u *guest.Unit) { u.Env = []string{"PYTHONUNBUFFERED=1"} }, "-"},
		{"the linker's", func(u *guest.Unit) { u.Env = []string{"LD_PRELOAD=/opt/x.so"} }, "-"},
		{"the allocator's", func(u *guest.Unit) { u.Env = []string{"MALLOC_ARENA_MAX=2"} }, "-"},
		{"OpenSSL's", func(u *guest.Unit) { u.Env = []string{"OPENSSL_CONF=/x"} }, "-"},
		{"not UTF-8", func(u *guest.Unit) { u.Env = []string{"A=\xff"} }, "-"},
		{"a wrapper", func(u *guest.Unit) { u.Env = []string{"AWS_LAMBDA_EXEC_WRAPPER=/var/task/wrap"} }, "-"},
		{"without files of its own", func(u *guest.Unit) { u.Mounts = false }, "-"},
	} {
		u := pythonUnit(t, "app.handler", map[string]string{"app.py": "def handler(e, c): pass", "wrap": "#!/bin/sh\nexec \"$@\"\n"})
		u.Mounts = true
		c.change(u)
		code, err := p.Code(u, "")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := "-"
		if code.Template != nil {
			got = strings.Join(code.Template.Env, " ")
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
