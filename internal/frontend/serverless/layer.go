package serverless

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// layers adds the project's layers. Their Content is a folder or a ready zip of the project, the form
// CloudFormation's own packaging reads; Serverless has the place it uploaded to there.
func (c *compiler) layers() {
	for _, e := range c.entries(c.doc.Get("layers"), "layers") {
		n := e.Value
		if isPoison(n) {
			continue
		}
		c.keys(n, c.where("layer", e.Key), words("path name description compatibleRuntimes compatibleArchitectures licenseInfo allowedAccounts retain package"))
		content, ready := n.Get("path"), n.At("package", "artifact")
		id := layerID(e.Key)
		switch {
		case truthy(ready):
			content = ready
		case !truthy(content):
			c.l.Errorf(e.Pos, "missing-key", "Add `path: folder`.", "the layer %q has no path", e.Key)
			continue
		default:
			// The project's patterns are read from the layer's own folder, as Serverless does.
			if patterns := c.patterns(c.doc.Get("package"), n.Get("package"), nil); len(patterns) > 0 {
				c.layerRules[id] = patterns
			}
		}
		var more []any
		if isTrue(n.Get("retain")) {
			more = []any{"DeletionPolicy", "Retain"}
		}
		c.put(id, e.Pos, "AWS::Lambda::LayerVersion", obj(e.Pos,
			"Content", cleanPath(c.text(content, "a layer's path")),
			"LayerName", orText(e.Pos, e.Key, n.Get("name")),
			"Description", or(n.Get("description")),
			"LicenseInfo", or(n.Get("licenseInfo")),
			"CompatibleRuntimes", or(n.Get("compatibleRuntimes")),
			"CompatibleArchitectures", or(n.Get("compatibleArchitectures")),
		), more...)
		for _, account := range list(n.Get("allowedAccounts")) {
			who := c.text(account, "an account")
			c.put(normal(e.Key)+strings.ReplaceAll(who, "*", "Wild")+"LambdaLayerPermission", account.Pos, "AWS::Lambda::LayerVersionPermission",
				obj(account.Pos, "Action", "lambda:GetLayerVersion", "LayerVersionArn", ref(account.Pos, id), "Principal", who))
		}
		c.output(id+"QualifiedArn", e.Pos, "Current Lambda layer version", ref(e.Pos, id))
	}
}

// layersOf gives the layers of a function: its own, else the provider's.
func (c *compiler) layersOf(fn *function) *cfn.Node {
	layers := or(fn.n.Get("layers"), c.provider.Get("layers"))
	if layers != nil && layers.Kind == cfn.Scalar && !isPoison(layers) {
		c.l.Errorf(layers.Pos, "wrong-type", "Begin each layer with a dash.", "layers must be a list, not %s", kindName(layers))
		return nil
	}
	if layers == nil || layers.Kind != cfn.List || !c.plugins["serverless-python-requirements"] || c.has(requirementsLayerID) {
		return layers
	}
	own := *layers
	own.Items = slices.DeleteFunc(slices.Clone(layers.Items), func(it *cfn.Node) bool {
		id, _ := it.Get("Ref").Text()
		return id == requirementsLayerID
	})
	return &own
}

// requirementsLayerID is the layer that serverless-python-requirements makes of the requirements, which here are in the code.
const requirementsLayerID = "PythonRequirementsLambdaLayer"

// isolation reads a function's from custom.ebb.isolation: a word for all functions, or one for each by name.
func (c *compiler) isolation(key string) string {
	n := c.doc.At("custom", "ebb", "isolation")
	if n != nil && n.Kind == cfn.Map {
		n = n.Get(key)
	}
	switch text := c.text(n, "the isolation of a function"); text {
	case "", app.Strong:
		return text
	case "auto":
	default:
		c.l.Errorf(n.Pos, "wrong-type", "Write strong or auto, or a map of these by function.", "custom.ebb.isolation is neither strong nor auto")
	}
	return ""
}

// layerFiles reads custom.ebb.layers: folders or zips that stand in for layers from elsewhere.
func (c *compiler) layerFiles() map[string]string {
	files := map[string]string{}
	n := c.doc.At("custom", "ebb")
	c.keys(n, "in custom.ebb", words("layers isolation"))
	for _, e := range c.entries(n.Get("layers"), "custom.ebb.layers") {
		if file := cleanPath(c.text(e.Value, "a layer's folder or zip")); file != "" {
			files[e.Key] = file
		}
	}
	return files
}
