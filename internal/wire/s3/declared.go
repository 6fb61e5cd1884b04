package s3

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

// renamed gives, for names of CloudFormation's that are others than those of S3's documents, the name there.
var renamed = map[string]string{
	"CorsRules": "CORSRule", "AllowedHeaders": "AllowedHeader", "AllowedMethods": "AllowedMethod", "AllowedOrigins": "AllowedOrigin", "ExposedHeaders": "ExposeHeader",
	"MaxAge": "MaxAgeSeconds", "Rules": "Rule", "Id": "ID", "TagFilters": "Tag", "RoutingRuleCondition": "Condition", "RedirectRule": "Redirect",
}

// Declare makes a bucket what CloudFormation's properties of AWS::S3::Bucket say, their values resolved. What is not declared goes.
// Properties that have no meaning here are left out.
func Declare(b *store.Bucket, properties map[string]any) error {
	if b.Documents == nil {
		b.Documents = map[string][]byte{}
	}
	text := func(of any, name string) string {
		m, _ := of.(map[string]any)
		s, _ := m[name].(string)
		return s
	}
	switch status := text(properties["VersioningConfiguration"], "Status"); {
	case status == "Enabled" || properties["ObjectLockEnabled"] == true:
		b.Versioning = store.Versioned
	case b.Versioning == store.Versioned: // it cannot go back
		b.Versioning = store.Suspended
	}
	if properties["ObjectLockEnabled"] == true {
		b.Documents["object-lock"] = []byte("<ObjectLockConfiguration xmlns=\"" + namespace + "\"><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>")
	}
	if conf := properties["ObjectLockConfiguration"]; conf != nil {
		i := slices.IndexFunc(documents, func(d documentKind) bool { return d.name == "object-lock" })
		if err := declareDocument(b, documents[i], conf); err != nil {
			return fmt.Errorf("ObjectLockConfiguration: %w", err)
		}
	}
	b.Tags = nil
	for _, one := range listOf(properties["Tags"]) {
		if b.Tags == nil {
			b.Tags = map[string]string{}
		}
		b.Tags[text(one, "Key")] = text(one, "Value")
	}
	if canned, ok := properties["AccessControl"].(string); ok {
		b.Documents["acl"] = []byte(cannedName(canned))
	}
	for name, root := range map[string]string{"CorsConfiguration": "CORSConfiguration", "LifecycleConfiguration": "LifecycleConfiguration", "WebsiteConfiguration": "WebsiteConfiguration",
		"PublicAccessBlockConfiguration": "PublicAccessBlockConfiguration", "NotificationConfiguration": "NotificationConfiguration"} {
		i := slices.IndexFunc(documents, func(d documentKind) bool { return d.root == root })
		if err := declareDocument(b, documents[i], properties[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func declareDocument(b *store.Bucket, d documentKind, declared any) error {
	if d.name == "notification" { // where it names functions, queues and topics it is for who makes Subscriptions
		m, _ := declared.(map[string]any)
		if e, ok := m["EventBridgeConfiguration"]; ok && fmt.Sprint(e) != "map[EventBridgeEnabled:false]" {
			return setDocument(b, d.name, []byte("<NotificationConfiguration xmlns=\""+namespace+"\"><EventBridgeConfiguration></EventBridgeConfiguration></NotificationConfiguration>"))
		}
		return setDocument(b, d.name, nil)
	}
	if declared == nil {
		delete(b.Documents, d.name)
		return nil
	}
	var out strings.Builder
	out.WriteString("<" + d.root + ` xmlns="` + namespace + `">`)
	writeDeclared(&out, declared, d.name)
	out.WriteString("</" + d.root + ">")
	data := []byte(out.String())
	if d.check != nil {
		var said *wire.Error
		if err := d.check(data); errors.As(err, &said) {
			return errors.New(said.Message) //nolint:err113 // for the deployer
		} else if err != nil {
			return err
		}
	}
	b.Documents[d.name] = data
	return nil
}

// writeDeclared writes properties as elements.
func writeDeclared(out *strings.Builder, v any, kind string) {
	m, ok := v.(map[string]any)
	if !ok {
		_ = xml.EscapeText(out, []byte(scalarText(v))) // a Builder takes all
		return
	}
	m = shaped(m, kind)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		name := k
		if to, ok := renamed[k]; ok && !(kind == "website" && (k == "Id" || k == "Rules")) {
			name = to
		}
		list, many := m[k].([]any)
		if !many {
			list = []any{m[k]}
		}
		if name == "RoutingRules" {
			out.WriteString("<RoutingRules>")
			name = "RoutingRule"
		}
		for _, one := range list {
			out.WriteString("<" + name + ">")
			writeDeclared(out, one, kind)
			out.WriteString("</" + name + ">")
		}
		if k == "RoutingRules" {
			out.WriteString("</RoutingRules>")
		}
	}
}

func scalarText(v any) string {
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprint(v)
}

// shaped gives properties the form of S3's documents, where CloudFormation's is flatter.
func shaped(m map[string]any, kind string) map[string]any {
	out := maps.Clone(m)
	set := func(at, name string, v any) {
		inner, _ := out[at].(map[string]any)
		if inner = maps.Clone(inner); inner == nil {
			inner = map[string]any{}
		}
		inner[name] = v
		out[at] = inner
	}
	move := func(from, at, name string) {
		if v, ok := out[from]; ok {
			delete(out, from)
			set(at, name, v)
		}
	}
	switch kind {
	case "website":
		if s, ok := out["IndexDocument"].(string); ok {
			out["IndexDocument"] = map[string]any{"Suffix": s}
		}
		if s, ok := out["ErrorDocument"].(string); ok {
			out["ErrorDocument"] = map[string]any{"Key": s}
		}
	case "lifecycle":
		if _, rule := out["Status"]; !rule {
			break
		}
		move("ExpirationInDays", "Expiration", "Days")
		move("ExpirationDate", "Expiration", "Date")
		move("ExpiredObjectDeleteMarker", "Expiration", "ExpiredObjectDeleteMarker")
		move("NoncurrentVersionExpirationInDays", "NoncurrentVersionExpiration", "NoncurrentDays")
		delete(out, "Transitions") // nothing is moved between classes here
		delete(out, "Transition")
		delete(out, "NoncurrentVersionTransitions")
		delete(out, "NoncurrentVersionTransition")
		and := map[string]any{}
		for from, to := range map[string]string{"Prefix": "Prefix", "TagFilters": "Tag", "ObjectSizeGreaterThan": "ObjectSizeGreaterThan", "ObjectSizeLessThan": "ObjectSizeLessThan"} {
			if v, ok := out[from]; ok {
				delete(out, from)
				and[to] = v
			}
		}
		if len(and) > 0 {
			out["Filter"] = map[string]any{"And": and}
		}
		if out["Expiration"] == nil && out["NoncurrentVersionExpiration"] == nil && out["AbortIncompleteMultipartUpload"] == nil {
			out["Transition"] = []any{map[string]any{}}
		}
	}
	return out
}

func listOf(v any) []any {
	list, _ := v.([]any)
	return list
}

// cannedName is a canned ACL as headers write it: PublicRead is public-read.
func cannedName(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// DeclarePolicy gives a bucket a policy, nil for none.
func DeclarePolicy(b *store.Bucket, document any) error {
	if document == nil {
		return setDocument(b, "policy", nil)
	}
	data, err := json.Marshal(document)
	if err == nil {
		err = checkPolicy(data)
	}
	if err != nil {
		return err
	}
	return setDocument(b, "policy", data)
}
