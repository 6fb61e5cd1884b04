package build

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/artifact"
)

// tinySDK is made as version 2 of the AWS SDK is.
var tinySDK = map[string]string{
	"aws-sdk/package.json":       `{"name":"aws-sdk","version":"2.1.0","main":"lib/aws.js"}`,
	"aws-sdk/lib/node_loader.js": "require('./core');\n",
	"aws-sdk/lib/core.js": `var AWS = { VERSION: '2.1.0', apiLoader: { services: {} }, loaded: [] };
AWS.Service = { _serviceMap: {}, defineService: function (id) { AWS.loaded.push(id); AWS.Service._serviceMap[id] = true; return function Client() { this.id = id; }; } };
module.exports = AWS;
`,
	"aws-sdk/lib/aws.js":         "require('./node_loader');\nvar AWS = require('./core');\nrequire('../clients/all');\nmodule.exports = AWS;\n",
	"aws-sdk/clients/all.js":     "require('../lib/node_loader');\nmodule.exports = {\n  S3: require('./s3'),\n  CUR: require('./cur'),\n  ACM: require('./acm')\n};",
	"aws-sdk/clients/s3.js":      tinyClient("S3", "s3"),
	"aws-sdk/clients/cur.js":     tinyClient("CUR", "cur"),
	"aws-sdk/clients/acm.js":     tinyClient("ACM", "acm"),
	"aws-sdk/clients/browser.js": "module.exports = {};",
}

func tinyClient(name, id string) string {
	return strings.NewReplacer("NAME", name, "ID", id).Replace(`require('../lib/node_loader');
var AWS = require('../lib/core');
var Service = AWS.Service;
var apiLoader = AWS.apiLoader;

apiLoader.services['ID'] = {};
AWS.NAME = Service.defineService('ID', ['2006-03-01']);
AWS.NAME.Signer = function () {};
Object.defineProperty(apiLoader.services['ID'], '2006-03-01', { get: function () { return 'model of ID'; }, enumerable: true });

module.exports = AWS.NAME;
`)
}

func TestLazySDK_LoadsWhatIsAskedFor(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("the test needs node")
	}
	whole := treeOf(tinySDK)
	run := func(tree *artifact.Tree, script string) string {
		t.Helper()
		dir := t.TempDir()
		if err := tree.Unpack(filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(node, "-e", script)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	lazy := lazySDK(whole, "")
	if below := lazySDK(whole.Under("a/node_modules"), "a/node_modules"); run(below, "console.log(require('./node_modules/a/node_modules/aws-sdk').loaded.length)") != "0" {
		t.Error("below a folder all clients are loaded")
	}
	for script, want := range map[string]string{
		"AWS.S3; say(AWS.loaded)": "s3",
		"say(AWS.loaded)":         "",
		"say(require('aws-sdk/clients/acm') === AWS.ACM, AWS.loaded)": "true,acm",
	} {
		if got := run(lazy, "const AWS = require('aws-sdk'), say = (...x) => console.log(x.join());"+script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	for _, script := range []string{
		"say(Object.keys(AWS).filter((k) => k !== 'loaded'))",
		"say(Object.keys(AWS.apiLoader.services), Object.keys(AWS.Service._serviceMap))",
		"say(new AWS.S3().id, AWS.S3 === AWS.S3, typeof AWS.S3.Signer)",
		"say(AWS.apiLoader.services.cur['2006-03-01'], AWS.apiLoader.services.cur === AWS.apiLoader.services.cur)",
		"AWS.S3; AWS.CUR = 7; say(AWS.CUR, Object.keys(AWS), JSON.stringify(Object.getOwnPropertyDescriptor(AWS, 'CUR')))",
		"const all = require('aws-sdk/clients/all'); say(Object.keys(all), all.S3 === AWS.S3, all.ACM === AWS.ACM)",
		"const { S3, CUR } = AWS; say(S3.name, new CUR().id)",
		"const copy = { ...AWS }; say(new copy.ACM().id, copy.ACM === AWS.ACM, Object.keys(copy))",
		"for (const k in AWS) if (typeof AWS[k] === 'function') say(k)",
		"say(typeof AWS.Nothing, 'S3' in AWS, Object.hasOwn(AWS, 'S3'))",
	} {
		script = "const AWS = require('aws-sdk'), say = (...x) => console.log(x.join());" + script
		if got, want := run(lazy, script), run(whole, script); got != want {
			t.Errorf("%s:\n lazily   %s\n as it is %s", script, got, want)
		}
	}
}

func TestLazySDK_LeavesWhatItDoesNotKnow(t *testing.T) {
	for name, change := range map[string]func(files map[string]string){
		"no SDK":            func(f map[string]string) { clear(f); f["left-pad/index.js"] = "1" },
		"another line":      func(f map[string]string) { f[allClients] += "\nrequire('./more');" },
		"a client is gone":  func(f map[string]string) { delete(f, "aws-sdk/clients/cur.js") },
		"another client":    func(f map[string]string) { f["aws-sdk/clients/cur.js"] = "module.exports = require('./cur2')" },
		"no clients at all": func(f map[string]string) { f[allClients] = "require('../lib/node_loader');\nmodule.exports = {\n};" },
	} {
		files := map[string]string{}
		for k, v := range tinySDK {
			files[k] = v
		}
		change(files)
		if tree := treeOf(files); lazySDK(tree, ".") != tree {
			t.Errorf("%s: it was changed", name)
		}
	}
}

func treeOf(files map[string]string) *artifact.Tree {
	var list []artifact.File
	for name, text := range files {
		list = append(list, artifact.File{Path: name, Mode: 0o644, Data: []byte(text)})
	}
	return artifact.FromFiles(list...)
}
