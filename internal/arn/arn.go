// Package arn writes and reads Amazon Resource Names.
//
// Main type: [ARN]. Source: AWS General Reference, "Amazon Resource Names (ARNs)".
//
// Guarantees:
//
//  1. Parse(a.String()) equals a for every valid a.
//  2. Nothing here looks anything up.
package arn

import (
	"fmt"
	"strings"
)

// ARN is the parts of arn:partition:service:region:account:resource.
type ARN struct {
	Partition string // "aws"
	Service   string
	Region    string // may be empty
	Account   string // 12 digits, may be empty
	Resource  string // "function:name", "table/name"; may hold colons
}

// New returns an ARN in the partition "aws".
func New(service, region, account, resource string) ARN {
	return ARN{Partition: "aws", Service: service, Region: region, Account: account, Resource: resource}
}

// Function returns the ARN of a Lambda function, without qualifier.
func Function(region, account, name string) ARN {
	return New("lambda", region, account, "function:"+name)
}

// String gives the colon form.
func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + a.Service + ":" + a.Region + ":" + a.Account + ":" + a.Resource
}

// Parse reads the colon form.
func Parse(s string) (ARN, error) {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[1] == "" || p[2] == "" || p[5] == "" {
		return ARN{}, fmt.Errorf("%q is not an ARN (want arn:partition:service:region:account:resource)", s)
	}
	return ARN{Partition: p[1], Service: p[2], Region: p[3], Account: p[4], Resource: p[5]}, nil
}

// FunctionName returns the function named by a Lambda function ARN, a partial ARN
// (account:function:name) or a bare name, and its qualifier, if any.
func FunctionName(s string) (name, qualifier string, err error) {
	rest := s
	if strings.HasPrefix(s, "arn:") {
		a, err := Parse(s)
		if err != nil {
			return "", "", err
		}
		if a.Service != "lambda" {
			return "", "", fmt.Errorf("%q names no Lambda function", s)
		}
		rest = a.Resource
	} else if i := strings.Index(s, ":function:"); i >= 0 {
		rest = s[i+1:]
	}
	rest = strings.TrimPrefix(rest, "function:")
	name, qualifier, _ = strings.Cut(rest, ":")
	if name == "" || strings.ContainsAny(name, "/ ") {
		return "", "", fmt.Errorf("%q names no Lambda function", s)
	}
	return name, qualifier, nil
}
