package s3_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

// A form does what its policy says of all its fields, the bucket too.
func TestForm_IsHeldToItsPolicy(t *testing.T) {
	t.Parallel()
	const (
		begin = `{"expiration":"2099-01-01T00:00:00Z","conditions":[["starts-with","$x-amz-credential",""],["starts-with","$x-amz-algorithm",""]`
		here  = `,{"bucket":"bucket"}`
	)
	for _, c := range []struct{ name, policy, data, field, want string }{
		{"as it says", begin + here + `,["starts-with","$key","in/"]]}`, "data", "", "204 "},
		{"without a bucket", begin + `,["starts-with","$key","in/"]]}`, "data", "", "403 Invalid according to Policy: Extra input fields: bucket"},
		{"of another bucket", begin + `,{"bucket":"other"},["starts-with","$key","in/"]]}`, "data", "", `403 Invalid according to Policy: Policy Condition failed: ["eq", "$bucket", "other"]`},
		{"another key", begin + here + `,["eq","$key","in/x"]]}`, "data", "", "403 Invalid according to Policy: Policy Condition failed"},
		{"a field more", begin + here + `,["starts-with","$key","in/"]]}`, "data", "acl", "403 Invalid according to Policy: Extra input fields: acl"},
		{"a field that is ignored", begin + here + `,["starts-with","$key","in/"]]}`, "data", "x-ignore-me", "204 "},
		{"too long", begin + here + `,["starts-with","$key","in/"],["content-length-range",0,3]]}`, "data", "", "400 Your proposed upload exceeds the maximum allowed size"},
		{"too short", begin + here + `,["starts-with","$key","in/"],["content-length-range",5,9]]}`, "data", "", "400 Your proposed upload is smaller than the minimum allowed size"},
		{"over", strings.Replace(begin, "2099", "2001", 1) + here + `,["starts-with","$key","in/"]]}`, "data", "", "403 Invalid according to Policy: Policy expired."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, _ := endpoint(t)
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			_ = w.WriteField("key", "in/k")
			for k, v := range formPolicy(c.policy) {
				_ = w.WriteField(k, v)
			}
			if c.field != "" {
				_ = w.WriteField(c.field, "public-read")
			}
			p, err := w.CreateFormFile("file", "f")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(p, c.data)
			_ = w.Close()
			r, err := http.NewRequestWithContext(t.Context(), "POST", e.URL+"/bucket", &body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", w.FormDataContentType())
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			code, message, _ := strings.Cut(c.want, " ")
			if resp.Status[:3] != code || !strings.Contains(string(text), message) {
				t.Errorf("%s %s, want %s", resp.Status, text, c.want)
			}
			taken := 404
			if code == "204" {
				taken = 200
			}
			do(t, e, "GET", "/bucket/in/k", "", taken)
		})
	}
}
