package serverless

import (
	"fmt"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

// plugin says what is made of a known plugin.
type plugin struct {
	note     string   // what stands in its place, for the note line
	missed   bool     // the app may not work without it: the line is a warning
	top      []string // its keys at the top of the file
	provider []string // its keys in provider
	function []string // its keys in a function
}

const (
	bundled  = "ebb bundles the code itself"
	locally  = "it is for running locally, which ebb does itself"
	onDeploy = "it acts on a deploy to AWS only"
)

// plugins known by name. One that is not here gets a warning.
var plugins = map[string]plugin{
	"serverless-offline":                     {note: locally},
	"serverless-offline-scheduler":           {note: locally},
	"serverless-offline-sqs":                 {note: locally},
	"serverless-offline-sns":                 {note: locally},
	"serverless-offline-ssm":                 {note: locally},
	"serverless-offline-kinesis":             {note: locally},
	"serverless-offline-dynamodb-streams":    {note: locally},
	"serverless-offline-python":              {note: locally},
	"serverless-offline-aws-eventbridge":     {note: locally},
	"serverless-s3-local":                    {note: locally},
	"serverless-dynamodb-local":              {note: locally},
	"serverless-dynamodb":                    {note: locally},
	"serverless-localstack":                  {note: locally},
	"serverless-plugin-simulate":             {note: locally},
	"serverless-webpack":                     {note: bundled},
	"serverless-esbuild":                     {note: bundled},
	"serverless-plugin-esbuild":              {note: bundled},
	"serverless-bundle":                      {note: bundled},
	"serverless-jetpack":                     {note: bundled},
	"serverless-plugin-typescript":           {note: bundled},
	"serverless-typescript":                  {note: bundled},
	"serverless-plugin-optimize":             {note: bundled},
	"serverless-babel-plugin":                {note: bundled},
	"serverless-plugin-babel":                {note: bundled},
	"serverless-plugin-include-dependencies": {note: "ebb packages the dependencies itself"},
	"serverless-plugin-common-excludes":      {note: "ebb packages the dependencies itself"},
	"serverless-package-python-functions":    {note: "ebb installs the requirements itself"},
	"serverless-python-requirements":         {note: "ebb installs requirements.txt itself", function: words("module vendor")},
	"serverless-go-plugin":                   {note: "ebb builds Go handlers itself"},
	"serverless-rust":                        {note: "the project's own build is expected"},
	"serverless-haskell":                     {note: "the project's own build is expected"},
	"serverless-ruby-layer":                  {note: "gems come from the project's folder"},
	"serverless-ruby-package":                {note: "gems come from the project's folder"},
	"serverless-dotenv-plugin":               {note: "its variables are read and given to the functions"},
	"serverless-pseudo-parameters":           {note: "#{AWS::…} is understood"},
	"serverless-plugin-split-stacks":         {note: onDeploy},
	"serverless-plugin-log-retention":        {note: onDeploy},
	"serverless-plugin-warmup":               {note: "ebb keeps the Instances itself and sends no pings", function: words("warmup")},
	"serverless-plugin-aws-alerts":           {note: onDeploy, function: words("alarms")},
	"serverless-plugin-datadog":              {note: onDeploy},
	"serverless-plugin-tracing":              {note: onDeploy, provider: words("tracing"), function: words("tracing")},
	"serverless-plugin-canary-deployments":   {note: onDeploy, function: words("deploymentSettings")},
	"serverless-prune-plugin":                {note: onDeploy},
	"serverless-domain-manager":              {note: "custom domains are not set up from it"},
	"serverless-certificate-creator":         {note: onDeploy},
	"serverless-s3-sync":                     {note: "no files are copied by it"},
	"serverless-finch":                       {note: "no files are copied by it"},
	"serverless-single-page-app-plugin":      {note: "no files are copied by it"},
	"serverless-s3-remover":                  {note: onDeploy},
	"serverless-s3-deploy":                   {note: onDeploy},
	"serverless-export-env":                  {note: onDeploy},
	"serverless-stack-output":                {note: onDeploy},
	"serverless-manifest-plugin":             {note: onDeploy},
	"serverless-scriptable-plugin":           {note: "its scripts are not run", missed: true},
	"serverless-plugin-scripts":              {note: "its scripts are not run", missed: true},
	"serverless-hooks-plugin":                {note: "its scripts are not run", missed: true},
	"serverless-plugin-git-variables":        {note: "${git:…} is understood"},
	"serverless-iam-roles-per-function":      {note: "roles per function are understood", function: words("iamRoleStatements iamRoleStatementsInherit iamRoleStatementsName iamPermissionsBoundary"), provider: words("iamRoleStatementsInherit")},
	"serverless-step-functions":              {note: "state machines are not run", top: words("stepFunctions")},
	"serverless-appsync-plugin":              {note: "GraphQL APIs are not run", top: words("appSync")},
	"serverless-apigateway-service-proxy":    {note: "service proxies are not run", missed: true},
	"serverless-aws-documentation":           {note: onDeploy},
	"serverless-openapi-documentation":       {note: onDeploy},
	"serverless-reqvalidator-plugin":         {note: "request validators are not run"},
	"serverless-add-api-key":                 {note: "API keys are not created by it"},
	"serverless-aws-alias":                   {note: onDeploy},
	"serverless-vpc-plugin":                  {note: onDeploy},
	"serverless-associate-waf":               {note: onDeploy},
	"serverless-ssm-fetch":                   {note: "no parameters are fetched by it", missed: true},
	"serverless-kms-secrets":                 {note: "no secrets are decrypted by it", missed: true},
	"serverless-secrets-plugin":              {note: "no secrets are decrypted by it", missed: true},
	"serverless-content-encoding":            {note: onDeploy},
	"serverless-apigw-binary":                {note: "its media types are understood"},
	"serverless-apigwy-binary":               {note: "its media types are understood"},
	"serverless-api-compression":             {note: onDeploy},
	"serverless-deployment-bucket":           {note: onDeploy},
	"serverless-wsgi":                        {note: "the handler wsgi_handler comes with it and is not added", missed: true},
	"serverless-rack":                        {note: "the handler rack_adapter comes with it and is not added", missed: true},
	"serverless-lift":                        {note: "queues, storage and tables are built", top: words("constructs")},
	"serverless-compose":                     {note: onDeploy},
	"@serverless/enterprise-plugin":          {note: onDeploy},
	"@serverless/safeguards-plugin":          {note: onDeploy},
	"serverless-plugin-epsagon":              {note: onDeploy},
	"serverless-plugin-ifelse":               {note: "its conditions are not applied", missed: true},
	"serverless-plugin-existing-s3":          {note: "its events are kept as declared"},
	"serverless-aws-static-file-handler":     {note: "static files are served by the project's own handler"},
	"serverless-plugin-bind-deployment-id":   {note: onDeploy},
	"serverless-plugin-stage-variables":      {note: "stage variables are not set by it"},
	"serverless-plugin-resource-tagging":     {note: onDeploy},
	"serverless-plugin-lambda-dead-letter":   {note: "its dead letters are not set up", function: words("deadLetter")},
	"serverless-plugin-chrome":               {note: "no browser is supplied", missed: true},
	"serverless-plugin-browserifier":         {note: bundled},
	"serverless-latest-layer-version":        {note: onDeploy},
	"serverless-analyze-bundle-plugin":       {note: onDeploy},
	"serverless-middleware":                  {note: "its middleware is not put before handlers", missed: true},
	"serverless-spa":                         {note: "no files are copied by it"},
}

// pluginOfKey names the plugin that a top-level key belongs to.
func pluginOfKey(key string) string {
	var names []string
	for name, p := range plugins {
		if slices.Contains(p.top, key) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

type namedPlugin struct {
	name string
	pos  diag.Pos
}

// pluginList gives the plugins of the document, in order. The older form has them under modules.
func (c *compiler) pluginList() []namedPlugin {
	n := c.doc.Get("plugins")
	if m := n.Get("modules"); m != nil {
		n = m
	}
	var out []namedPlugin
	for _, it := range list(n) {
		if s, ok := it.Text(); ok && !isPoison(it) {
			out = append(out, namedPlugin{s, it.Pos})
		}
	}
	return out
}

// readPlugins notes each plugin in one line.
func (c *compiler) readPlugins() {
	for _, p := range c.pluginList() {
		c.plugins[p.name] = true
		known, ok := plugins[p.name]
		switch {
		case known.missed:
			c.l.Warnf(p.pos, "plugin", "", "plugin %s is not run: %s", p.name, known.note)
		case ok:
			c.l.Notef(p.pos, "plugin", "", "plugin %s is not run: %s", p.name, known.note)
		default:
			c.l.Warnf(p.pos, "unknown-plugin", pluginHint(p.name), "plugin %s is not known and is not run", p.name)
		}
	}
}

func pluginHint(name string) string {
	if _, bare, ok := strings.Cut(name, "/"); ok {
		if _, known := plugins[bare]; known {
			return fmt.Sprintf("It looks like a copy of %s, which is known.", bare)
		}
	}
	return "What it adds to the app has no effect here; the rest of the project is read as it is."
}

// functionKeysHere are the keys a function may have, those of the project's plugins included.
func (c *compiler) functionKeysHere() []string {
	known := functionKeys
	for _, p := range c.pluginList() {
		known = append(slices.Clip(known), plugins[p.name].function...)
	}
	return known
}

// dotenvPlugin gives the variables that serverless-dotenv-plugin puts into every function.
func (c *compiler) dotenvPlugin(r *resolver) {
	if !c.plugins["serverless-dotenv-plugin"] || len(r.dotenv) == 0 {
		return
	}
	pos := c.provider.Place()
	vars := map[string]any{}
	for k, v := range r.dotenv {
		vars[k] = v
	}
	env := cfn.From(pos, vars)
	for _, e := range mapEntries(c.provider.Get("environment")) {
		env = env.With(e.Key, e.Value)
	}
	c.provider = c.provider.With("environment", env)
}
