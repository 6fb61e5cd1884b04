package s3_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Who sends no signature may do what the bucket's policy lets everybody do, as IAM decides it.
func TestPolicy_OpensToEverybodyWhatItAllows(t *testing.T) {
	t.Parallel()
	const allow = `{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"%s}`
	for _, c := range []struct {
		name, statements string
		status           int
	}{
		{"allowed", fmt.Sprintf(allow, ""), 200},
		{"one in a list of principals", strings.Replace(fmt.Sprintf(allow, ""), `"*"`, `{"AWS":["arn:aws:iam::1:root","*"]}`, 1), 200},
		{"a principal of one's own", strings.Replace(fmt.Sprintf(allow, ""), `"*"`, `{"AWS":"arn:aws:iam::1:root"}`, 1), 403},
		{"another action", strings.Replace(fmt.Sprintf(allow, ""), "GetObject", "PutObject", 1), 403},
		{"actions in small letters and wildcards", strings.Replace(fmt.Sprintf(allow, ""), "s3:GetObject", "s3:get*", 1), 200},
		{"another resource", strings.Replace(fmt.Sprintf(allow, ""), "bucket/*", "bucket/other*", 1), 403},
		{"denied", fmt.Sprintf(allow, "") + `,{"Effect":"Deny","Principal":"*","NotAction":"s3:PutObject","Resource":"*"}`, 403},
		{"denied to others", fmt.Sprintf(allow, "") + `,{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::1:root"},"Action":"s3:*","Resource":"*"}`, 200},
		{"denied to all but some", fmt.Sprintf(allow, "") + `,{"Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::1:root"},"Action":"s3:*","Resource":"*"}`, 403},
		{"a condition that holds", fmt.Sprintf(allow, `,"Condition":{"IpAddress":{"aws:SourceIp":"127.0.0.0/8"},"StringLike":{"aws:Referer":"https://a.example/*"}}`), 200},
		{"a condition that does not", fmt.Sprintf(allow, `,"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`), 403},
		{"denied without TLS", fmt.Sprintf(allow, "") + `,{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}`, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, _ := endpoint(t)
			do(t, e, "PUT", "/bucket/k", "data", 200)
			do(t, e, "PUT", "/bucket?policy", `{"Version":"2012-10-17","Statement":[`+c.statements+`]}`, 204)
			r, err := http.NewRequestWithContext(t.Context(), "GET", e.URL+"/bucket/k", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Referer", "https://a.example/page")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("%s, want %d", resp.Status, c.status)
			}
		})
	}
}

// What a policy denies no ACL gives.
func TestPolicy_DeniesWhatAnACLGives(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	for _, key := range []string{"open", "denied"} {
		do(t, e, "PUT", "/bucket/"+key, "data", 200, "X-Amz-Acl", "public-read")
	}
	do(t, e, "PUT", "/bucket?policy", `{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/denied"}}`, 204)
	do(t, e, "PUT", "/bucket?website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument></WebsiteConfiguration>", 200)
	for key, want := range map[string]int{"open": 200, "denied": 403} {
		for host, path := range map[string]string{"localhost": "/bucket/" + key, "bucket.s3-website.localhost": "/" + key} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", e.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s at %q: %s, want %d", key, host, resp.Status, want)
			}
		}
	}
}

func TestPolicy_IsReadWholeOrRefused(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	for policy, want := range map[string]string{
		`[]`:               "Policies must be valid JSON",
		`{}`:               "Missing required field Statement",
		`{"Statement":{}}`: "Missing required field Effect",
		`{"Statement":{"Effect":"Maybe","Principal":"*","Action":"s3:*","Resource":"*"}}`:                                                "Invalid effect: Maybe",
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`:                                                                "Missing required field Principal",
		`{"Statement":{"Effect":"Allow","Principal":"*","Resource":"*"}}`:                                                                "Missing required field Action",
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*"}}`:                                                               "Missing required field Resource",
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"StringEqual":{"aws:SourceIp":1}}}}`: "Condition.StringEqual.aws:SourceIp: there is no such operator",
	} {
		if _, text := do(t, e, "PUT", "/bucket?policy", policy, 400); !strings.Contains(text, "<Code>MalformedPolicy</Code>") || !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %s", policy, text, want)
		}
	}
}
