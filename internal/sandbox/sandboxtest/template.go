package sandboxtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// asTemplate makes the test binary a Template.
const asTemplate = "sandboxtest-template"

// WithTemplate gives the Code of a guest of this package a Template that becomes it; other Code it leaves alone. how is "" or a way to be of no
// use: "deaf" (never ready), "hangs" (once it is assigned), "dies" (then).
func WithTemplate(c sandbox.Code, how string) sandbox.Code {
	self := Guest("").Mounts[0]
	if slices.Contains(c.Mounts, self) {
		c.Template = &sandbox.Template{Name: "test", Kind: sandbox.Waiting, Command: []string{self.Source, asTemplate, how}, Env: []string{"BORN=yes"}, Mounts: []sandbox.Mount{self}}
	}
	return c
}

// beTemplate waits to be assigned and becomes that.
func beTemplate(how string) {
	if how == "deaf" {
		sleep()
	}
	line := os.NewFile(sandbox.TemplateFD, "template")
	_, err := line.WriteString("ready")
	must(err)
	buf := make([]byte, 128<<10)
	n, err := line.Read(buf)
	if err != nil {
		os.Exit(0)
	}
	switch how {
	case "hangs":
		sleep()
	case "dies":
		os.Exit(3)
	}
	var a sandbox.Assignment
	must(json.Unmarshal(buf[:n], &a))
	if a.Dir == "" {
		a.Dir = "/"
	}
	must(os.Chdir(a.Dir))
	if a.Command[0] != os.Args[0] { // it could fail once the host has been told
		os.Exit(4)
	}
	_, err = line.WriteString("taken")
	must(err)
	must(line.Close())
	must(syscall.Exec(a.Command[0], a.Command, a.Env))
}

// Templated has a Driver start guests of this package from Templates, to see that nothing is another way then. ready waits until there is one
// for the Code in a Sandbox, false meaning that the Sandbox takes none; used reports whether it was.
func Templated(open Open, ready func(sandbox.Sandbox, sandbox.Code) (bool, error), used func(sandbox.Sandbox) bool) Open {
	return func(dir string) (sandbox.Driver, error) {
		d, err := open(dir)
		return &templatedDriver{Driver: d, ready: ready, used: used}, err
	}
}

type templatedDriver struct {
	sandbox.Driver
	ready func(sandbox.Sandbox, sandbox.Code) (bool, error)
	used  func(sandbox.Sandbox) bool
}

// Under is the driver that is tested.
func (d *templatedDriver) Under() sandbox.Driver { return d.Driver }

func (d *templatedDriver) Prepare(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	b, err := d.Driver.Prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	return &templatedSandbox{b, d}, nil
}

type templatedSandbox struct {
	sandbox.Sandbox
	d *templatedDriver
}

func (b *templatedSandbox) Start(ctx context.Context, c sandbox.Code) (sandbox.Conn, error) {
	c = WithTemplate(c, "")
	can := false
	if c.Template != nil && len(c.Command) > 0 && strings.HasPrefix(c.Command[0], "/") {
		// Something that is mounted when it is assigned.
		c.Mounts = append(slices.Clone(c.Mounts), sandbox.Mount{Source: "/usr/bin", Target: "/var/late"})
		var err error
		if can, err = b.d.ready(b.Sandbox, c); err != nil {
			return nil, fmt.Errorf("ready a template: %w", err)
		}
	}
	conn, err := b.Sandbox.Start(ctx, c)
	if err == nil && can && !b.d.used(b.Sandbox) {
		b.Stop(time.Second)
		return nil, fmt.Errorf("it did not come from its template")
	}
	return conn, err
}
