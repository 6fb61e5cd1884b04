package build

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/ebb-run/ebb/internal/artifact"
)

// allClients is the file in which version 2 of the AWS SDK loads the clients of all services, one module each.
const allClients = "aws-sdk/clients/all.js"

var (
	oneClient   = regexp.MustCompile(`^  (\w+): require\('\./(\w+)'\),?$`)
	clientFrame = regexp.MustCompile(`^(require\('\.\./lib/node_loader'\);|module\.exports = \{|\};?|)$`)
	serviceID   = regexp.MustCompile(`\bService\.defineService\('(\w+)',`)
)

// lazyClients is what takes the place of allClients: a client is loaded when it is asked for. What can be seen of the SDK without one is as it was:
// the clients' names in their order, and which services configuration can be given for.
const lazyClients = `require('../lib/node_loader');
var AWS = require('../lib/core');
var clients = %s;

function lazy(object, name, load) {
  if (Object.prototype.hasOwnProperty.call(object, name)) return;
  Object.defineProperty(object, name, {
    enumerable: true,
    configurable: true,
    get: load,
    set: function (value) {
      Object.defineProperty(this, name, { value: value, writable: true, enumerable: true, configurable: true });
    }
  });
}

clients.forEach(function (client) {
  var name = client[0], file = './' + client[1], id = client[2];
  AWS.Service._serviceMap[id] = true;
  lazy(AWS, name, function () { return require(file); });
  lazy(module.exports, name, function () { return require(file); });
  lazy(AWS.apiLoader.services, id, function () {
    require(file);
    return AWS.apiLoader.services[id];
  });
});
`

// lazySDK gives a Tree in which version 2 of the AWS SDK for JavaScript, among the packages in a folder, loads the clients that are used, in place of
// all four hundred: most of what such a function's start took. A Tree without it, or with one that is made otherwise than those known, is given as
// it is.
func lazySDK(t *artifact.Tree, packages string) *artifact.Tree {
	all := path.Join(packages, allClients)
	text, ok := fileOf(t, all)
	if !ok {
		return t
	}
	var clients [][3]string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		m := oneClient.FindStringSubmatch(line)
		if m == nil {
			if !clientFrame.MatchString(line) {
				return t
			}
			continue
		}
		source, ok := fileOf(t, path.Join(path.Dir(all), m[2]+".js"))
		id := serviceID.FindStringSubmatch(source)
		if !ok || id == nil {
			return t
		}
		clients = append(clients, [3]string{m[1], m[2], id[1]})
	}
	list, err := json.Marshal(clients)
	if err != nil || clients == nil {
		return t
	}
	return artifact.Merge(artifact.FromFiles(artifact.File{Path: all, Mode: 0o644, Data: fmt.Appendf(nil, lazyClients, list)}), t)
}

// fileOf reads one file of a Tree.
func fileOf(t *artifact.Tree, name string) (string, bool) {
	e, ok := t.Find(name)
	if !ok {
		return "", false
	}
	f, err := t.Open(e)
	if err != nil {
		return "", false
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err == nil
}
