package test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// javaFiles are functions with a custom runtime that run Java, of the system's, whose store of certificates is ebb's then, and as one would be that
// is in the code.
var javaFiles = map[string]string{
	"serverless.yml": `service: javas
provider: {name: aws, runtime: provided.al2023, region: eu-west-1, timeout: 60, memorySize: 1024}
package: {individually: true}
functions:
  system: {handler: x, events: [{httpApi: 'GET /system'}], package: {patterns: ['!**', bootstrap, Trust.java]}}
  own: {handler: x, events: [{httpApi: 'GET /own'}], package: {patterns: ['!**', bootstrap, Trust.java, 'jre/**']}, environment: {JAVA_TOOL_OPTIONS: -Downed=yes}}
`,
	"bootstrap": `#!/bin/sh
while true; do
  head=$(mktemp)
  curl -s -D "$head" -o /dev/null "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next"
  id=$(tr -d '\r' < "$head" | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p')
  java -XX:TieredStopAtLevel=1 Trust.java > /tmp/out 2>&1
  printf '{"statusCode": 200, "isBase64Encoded": true, "body": "%s"}' "$(base64 -w0 /tmp/out)" > /tmp/answer
  curl -s -X POST --data-binary @/tmp/answer "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response" > /dev/null
done
`,
	"Trust.java": `import java.net.URI;
import java.net.http.*;
public class Trust {
  public static void main(String[] args) throws Exception {
    HttpClient c = HttpClient.newHttpClient();
    for (String host : new String[] {"sts.eu-west-1.amazonaws.com", "dynamodb.eu-west-1.amazonaws.com"}) {
      HttpRequest r = HttpRequest.newBuilder(URI.create("https://" + host + "/")).header("X-Amz-Target", "DynamoDB_20120810.ListTables").POST(HttpRequest.BodyPublishers.ofString("{}")).build();
      HttpResponse<String> a = c.send(r, HttpResponse.BodyHandlers.ofString());
      System.out.println(host + " " + a.statusCode() + " " + a.body());
    }
    var factory = javax.net.ssl.TrustManagerFactory.getInstance("PKIX");
    factory.init((java.security.KeyStore) null);
    System.out.println("roots " + (((javax.net.ssl.X509TrustManager) factory.getTrustManagers()[0]).getAcceptedIssuers().length > 50) + " owned " + System.getProperty("owned"));
  }
}
`,
	"jre/lib/security/cacerts": "none\n",
}

func TestJava_TrustsTheServicesOfAWS(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"java", "--version"}, {"javac", "--version"}, {"curl", "--version"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("needs Java 11 or later with its compiler, and curl: %v %s", err, out)
		}
	}
	s := ebb.Start(t, project(t, javaFiles), filepath.Join(t.TempDir(), "data"), "up", "--listen", "127.0.0.1:0")
	if strings.Contains(s.Stderr(), "not isolated") {
		t.Skip("names are captured in sandboxes alone, which this machine does not give")
	}
	client := &http.Client{Timeout: 3 * time.Minute}
	for path, owned := range map[string]string{"/system": "null", "/own": "yes"} {
		status, body := get(client, s.Ready.Gateway+path)
		for _, want := range []string{"sts.eu-west-1.amazonaws.com 400 ", "dynamodb.eu-west-1.amazonaws.com 400 ", "MissingAuthenticationToken", "roots true owned " + owned} {
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d %s\nwant %s", path, status, body, want)
			}
		}
	}
}
