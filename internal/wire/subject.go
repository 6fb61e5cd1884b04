package wire

import (
	"context"
	"reflect"
	"strings"
)

// Subject is one thing that a request is to be allowed to do, as policies name it.
type Subject struct {
	Action   string // "sqs:SendMessage"
	Resource string // its ARN; of region and account only the places matter. "*" where the action is about none
	Also     string // another ARN of the same thing, or empty
	Context  map[string][]string
	Vague    bool // Resource or the last part of Action is not known: what may deny it, does
	// Reach: it is named in the request, and the caller needs no right of its own for it on AWS, as for a queue that a topic is to send to. Only
	// whose it is counts.
	Reach bool
}

// ARN makes the ARN of something of the caller's.
func (c *Call) ARN(service, resource string) string {
	return "arn:aws:" + service + ":" + c.Region + ":" + c.Caller.Account + ":" + resource
}

// Made is the key under which what a Function has made says which Stack's Function that was. Clients do not see it.
const Made = "ebb:made"

// Maker is the Stack whose Function sends the request, for what that makes; empty for others.
func (c *Caller) Maker() string {
	if c.Function == "" {
		return ""
	}
	return c.Tenant + "/" + c.App + "/" + c.Stage
}

// Mark notes in the tags of what is being made who makes it, and returns them.
func (c *Caller) Mark(tags map[string]string) map[string]string {
	if by := c.Maker(); by != "" {
		if tags == nil {
			tags = map[string]string{}
		}
		tags[Made] = by
	}
	return tags
}

// allow asks whether the caller may do what a request says. in is nil for operations that read it themselves.
func (c *Call) allow(ctx context.Context, in any) error {
	if c.Service.Subjects == nil {
		return nil
	}
	about := c.Service.Subjects(c, in)
	if err := c.Allow(ctx, about...); err != nil {
		return err
	}
	return c.Begin(ctx, about...)
}

// About is what the request is about, as far as that was asked.
func (c *Call) About() string { return c.about }

// Begin tells that the operation runs now, and is about what is given. Operations that ask Allow themselves call it then.
func (c *Call) Begin(ctx context.Context, about ...Subject) (err error) {
	if c.change == nil || c.end != nil {
		return nil
	}
	on := "*"
	if len(about) > 0 {
		on = about[0].Resource
	}
	c.end, err = c.change(ctx, c, on)
	return err
}

// Allow asks whether the caller may do all that is given. It is for operations that find out themselves what they are about; those of a Service
// with Subjects are asked about before they run.
func (c *Call) Allow(ctx context.Context, about ...Subject) error {
	if len(about) > 0 {
		c.about = about[0].Resource
	}
	if c.authorize == nil || len(about) == 0 {
		return nil
	}
	return c.authorize(ctx, c, about)
}

// NameIn is what stands behind a marker in an ARN, or the whole of what is none.
func NameIn(s, marker string) string {
	if !strings.HasPrefix(s, "arn:") {
		return s
	}
	_, name, _ := strings.Cut(s, marker)
	return name
}

// Member is the first of the named members of an input that is a text and not empty.
func Member(in any, names ...string) string {
	v := reflect.ValueOf(in)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return ""
	}
	for _, n := range names {
		f := v.FieldByName(n)
		if f.Kind() == reflect.Pointer && !f.IsNil() {
			f = f.Elem()
		}
		if f.Kind() == reflect.String && f.Len() > 0 {
			return f.String()
		}
	}
	return ""
}
