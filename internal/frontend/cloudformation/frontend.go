package cloudformation

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// maxTemplate is the size of a template file in bytes. CloudFormation takes 1 MB; local ones may hold inline code.
const maxTemplate = 8 << 20

// New returns the front-end of plain CloudFormation templates.
func New() frontend.Frontend { return plainTemplate{} }

type plainTemplate struct{}

// Name is the format's name.
func (plainTemplate) Name() string { return "cloudformation" }

// Detect finds a template by its usual names, if it has Resources of AWS and is no SAM template.
func (plainTemplate) Detect(p frontend.Project) (string, bool) {
	names := []string{"template.yaml", "template.yml", "template.json", "cloudformation.yaml", "cloudformation.yml", "cloudformation.json"}
	if p.File != "" {
		names = []string{p.File}
	}
	for _, name := range names {
		data, err := readFile(filepath.Join(p.Root, filepath.FromSlash(name)))
		if err != nil || !strings.Contains(string(data), "Resources") {
			continue
		}
		n, _ := ParseTemplate(name, data)
		if n == nil && strings.Contains(string(data), "AWSTemplateFormatVersion") || isTemplate(n) { // its faults are told when it is read
			return name, true
		}
	}
	return "", false
}

func isTemplate(n *Node) bool {
	transforms := n.Get("Transform")
	if transforms != nil && transforms.Kind != List {
		transforms = NewList(transforms.Pos, transforms)
	}
	if transforms != nil {
		for _, t := range transforms.Items {
			if name, _ := t.Text(); strings.HasPrefix(name, "AWS::Serverless") {
				return false
			}
		}
	}
	for _, en := range mapEntries(n.Get("Resources")) {
		if typ, _ := en.Value.Get("Type").Text(); strings.HasPrefix(typ, "AWS::") && !strings.HasPrefix(typ, "AWS::Serverless::") {
			return true
		}
	}
	return false
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxTemplate+1))
}

// Load reads the project's template.
func (c plainTemplate) Load(_ context.Context, p frontend.Project, o frontend.Options) (*app.App, diag.List) {
	var l diag.List
	file := p.File
	if file == "" {
		var ok bool
		if file, ok = c.Detect(p); !ok {
			l.Errorf(diag.Pos{}, "no-project", "Name the template's file.", "there is no CloudFormation template in %s", p.Root)
			return nil, l
		}
	}
	n, l := ReadDoc(p, file)
	if n == nil {
		return nil, l
	}
	n = Nest(p, Include(p, n, &l), &l)
	in := Input{Name: appName(p.Root), Stage: o.Stage, Region: o.Region, Account: o.Account, Source: "CloudFormation", Params: o.Params}
	if in.Stage == "" {
		in.Stage = "dev"
	}
	if in.Region == "" {
		in.Region = "us-east-1"
	}
	if in.Account == "" {
		in.Account = "000000000000"
	}
	in.Stack = in.Name + "-" + in.Stage
	a, more := Load(Template{Root: n}, in)
	return a, append(l, more...)
}

// pathless is an error of a file operation without the file's absolute name.
func pathless(err error) string {
	s := err.Error()
	return strings.TrimSpace(s[strings.LastIndex(s, ": ")+1:])
}

// appName makes a name out of the project's folder.
func appName(root string) string {
	name := regexp.MustCompile(`[^A-Za-z0-9_-]+`).ReplaceAllString(filepath.Base(root), "-")
	name = strings.TrimLeft(name, "-_0123456789")
	name = strings.TrimRight(name[:min(len(name), 64)], "-_")
	if name == "" {
		return "app"
	}
	return name
}
