package server_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// asksBoth calls services of the real AWS and of ebb with the SDK as it is, and looks for what it is not to see.
const asksBoth = `import boto3, io, os, json
from botocore.config import Config
from botocore.exceptions import ClientError
conf = Config(retries={'total_max_attempts': 1})
def told(f):
    try:
        r = f()
        return str(r['ResponseMetadata']['HTTPStatusCode'])
    except ClientError as e:
        return e.response['Error']['Code'] + ': ' + e.response['Error']['Message']
def hello(event, context):
    s3 = boto3.client('s3', config=conf)
    big = b'0123456789abcdef' * 20000
    return {
        'put': told(lambda: s3.put_object(Bucket='shelf', Key='a b', Body=big)),
        'get': told(lambda: s3.get_object(Bucket='shelf', Key='a b')),
        'queues': told(lambda: boto3.client('sqs', config=conf).list_queues()),
        'glue': told(lambda: boto3.client('glue', config=conf).get_tables(DatabaseName='x')),
        'metadata': told(lambda: boto3.client('s3', region_name='eu-west-3', config=conf).put_object(Bucket='shelf', Key='a', Body=b'x')),
        'env': json.dumps(dict(os.environ)),
    }
`

// real stands for the real AWS, and keeps what was put with the operator's signature.
type real struct {
	mu   sync.Mutex
	kept map[string]int // bytes by address
	bad  []string
}

func (c *real) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	claim, err := sign.Parse(r)
	var body *sign.Body
	if err == nil {
		body, err = claim.Check(r, "operators-secret", sign.Options{Now: time.Now(), MaxBody: 1 << 20, Path: r.URL.EscapedPath()})
	}
	if err != nil || claim.AccessKey != "AKIAOPERATOR" {
		c.bad = append(c.bad, fmt.Sprint(r.Method, " ", r.Host, r.RequestURI, " ", err))
		w.WriteHeader(http.StatusForbidden)
		return
	}
	c.kept[r.Host+r.RequestURI] += len(body.Data)
}

// Functions reach the services that are named at the real AWS, signed by the operator's key, which they never see; the rest stays here. Each call is
// told once, without a secret, and what leads to metadata is not followed.
func TestPassage_FunctionsReachWhatIsNamed(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with boto3: %v %s", err, out)
	}
	if ok, why := isolatedHere(t); !ok {
		t.Skipf("functions reach AWS's names only in a sandbox with a network of its own: %s", why)
	}
	src, err := certs.OpenCaptured(t.TempDir(), []string{"amazonaws.com"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	cloud := &real{kept: map[string]int{}}
	fake := httptest.NewUnstartedServer(cloud)
	fake.TLS = src.Config()
	fake.StartTLS()
	t.Cleanup(fake.Close)
	roots := x509.NewCertPool()
	roots.AddCert(src.CA())
	n := openOptions(t, filepath.Join(t.TempDir(), "data"), map[string]string{"aws-pass": "s3,textract", "iam": "enforce", "egress": "closed"}, func(o *server.Options) {
		env := o.Env
		o.Env = func(name string) (string, bool) {
			switch name {
			case "AWS_ACCESS_KEY_ID":
				return "AKIAOPERATOR", true
			case "AWS_SECRET_ACCESS_KEY":
				return "operators-secret", true
			}
			return env(name)
		}
		o.RealAWS = &server.RealAWS{
			Roots: roots,
			Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
				if strings.Contains(name, "eu-west-3") {
					return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
				}
				return []netip.Addr{netip.MustParseAddr("52.95.110.1")}, nil
			},
			Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
				if to.String() != "52.95.110.1:443" {
					return nil, fmt.Errorf("dialled %s", to)
				}
				return (&net.Dialer{}).DialContext(ctx, "tcp", fake.Listener.Addr().String())
			},
		}
	})
	a, _ := shop("shop", "dev", "")
	a.Region = "eu-west-1"
	a.Functions[0].Runtime, a.Functions[0].TimeoutSec, a.Functions[0].Role = "python3.11", 60, "Role"
	a.Roles = []app.Role{{ID: "Role", Statements: []map[string]any{
		{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::shelf/*"}, {"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"},
		{"Effect": "Allow", "Action": "glue:*", "Resource": "*"},
	}}}
	if _, err := n.deploy(t, a, artifact.FromFiles(artifact.File{Path: "handler.py", Mode: 0o644, Data: []byte(asksBoth)})); err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
	got := map[string]string{}
	n.invoke(t, "shop-dev-hello", map[string]any{}, &got)
	for what, want := range map[string]string{"put": "200", "get": "AccessDenied: User: ", "queues": "200", "glue": "ebb does not have the service glue", "metadata": "ebb could not reach s3 of AWS"} {
		if !strings.Contains(got[what], want) {
			t.Errorf("%s: %s, want %s", what, got[what], want)
		}
	}
	cloud.mu.Lock()
	defer cloud.mu.Unlock()
	if len(cloud.bad) > 0 || len(cloud.kept) != 1 || cloud.kept["shelf.s3.eu-west-1.amazonaws.com/a%20b"] != 320_000 {
		t.Errorf("the cloud kept %v and refused %q\n%s", cloud.kept, cloud.bad, n.log)
	}
	const line = "ebb: s3 PutObject at the real AWS: 200, 320000 bytes sent, 0 received"
	eventually(t, n, "the calls are in the function's log", func() bool { return strings.Count(n.logs(t), "at the real AWS: ") == 3 })
	if logs := n.logs(t); strings.Count(logs, line) != 1 || !strings.Contains(logs, "ebb: s3 GetObject at the real AWS: 403") || !strings.Contains(logs, "ebb: s3 PutObject at the real AWS: 503") {
		t.Errorf("want one line %q and two of refusals in\n%s", line, logs)
	}
	for where, text := range map[string]string{"the function's environment": got["env"], "its log": n.logs(t), "the server's log": n.log.String()} {
		for _, secret := range []string{"operators-secret", "AKIAOPERATOR"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s", where, secret)
			}
		}
	}
	for _, want := range []string{`ebb_aws_passed_requests_total{service="s3",status="2xx"} 1`, `ebb_aws_passed_requests_total{service="s3",status="4xx"} 1`, `ebb_aws_passed_bytes_total{direction="sent",service="s3"} 320000`} {
		if page := n.metrics(t); !strings.Contains(page, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

func TestPassage_StartsWithWhatItNeedsOrSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags map[string]string
		says  string
	}{
		"no keys":      {map[string]string{"aws-pass": "s3"}, "the environment has no AWS_ACCESS_KEY_ID"},
		"a source":     {map[string]string{"aws-pass": "s3", "aws-pass-credentials": "vault"}, `"vault" is neither env nor profile:NAME`},
		"a profile":    {map[string]string{"aws-pass": "s3", "aws-pass-credentials": "profile:none-such"}, "none-such"},
		"what is sent": {map[string]string{"aws-pass": "sts"}, "sts gives out credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := optionsWith(t, filepath.Join(t.TempDir(), "data"), &lockedBuffer{}, c.flags)
			o.Env = func(name string) (string, bool) {
				if name == "AWS_ACCESS_KEY_ID" && c.flags["aws-pass"] != "sts" {
					return "", false
				}
				return "x", true
			}
			s, err := server.Open(t.Context(), o)
			if err == nil {
				_ = s.Close()
			}
			if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %s", err, c.says)
			}
		})
	}
}
