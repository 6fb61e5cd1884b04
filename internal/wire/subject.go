package wire

import (
	"context"
	"reflect"
)

// Subject is one thing that a request is to be allowed to do, as policies name it.
type Subject struct {
	Action   string // "sqs:SendMessage"
	Resource string // its ARN; of region and account only the places matter. "*" where the action is about none
	Context  map[string][]string
}

// ARN makes the ARN of something of the caller's.
func (c *Call) ARN(service, resource string) string {
	return "arn:aws:" + service + ":" + c.Region + ":" + c.Caller.Account + ":" + resource
}

// allow asks whether the caller may do what a request says. in is nil for operations that read it themselves.
func (c *Call) allow(ctx context.Context, in any) error {
	if c.authorize == nil || c.Service.Subjects == nil {
		return nil
	}
	about := c.Service.Subjects(c, in)
	if len(about) == 0 {
		return nil
	}
	return c.authorize(ctx, c, about)
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
