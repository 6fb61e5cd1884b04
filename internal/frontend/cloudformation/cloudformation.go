// Package cloudformation turns a CloudFormation template into an App.
//
// Main type: [Template]. Other AWS formats (serverless.yml, SAM) compile to a Template and
// come through [Load] as well, so that the meaning of a resource type is written once.
//
// Guarantees:
//
//  1. Parameters, Mappings, Conditions and intrinsics are evaluated as far as the template
//     says; what only a deploy knows stays an app.Value.
//  2. A resource type without meaning here becomes an app.Foreign Resource with its properties.
//  3. Diagnostics carry the place of the Node they are about, whichever file it came from.
package cloudformation

import "github.com/ebb-run/ebb/internal/app"

// Template is a CloudFormation template as a document tree.
type Template struct {
	Root *Node // a Map with Resources and, if present, Parameters, Mappings, Conditions, Outputs
}

// Input is what Load needs beside the template.
type Input struct {
	Name    string            // App name
	Stage   string            // Stage name
	Region  string            // AWS::Region
	Account string            // AWS::AccountId, 12 digits
	Stack   string            // AWS::StackName
	Source  string            // app.App.Source
	Params  map[string]string // values of the template's Parameters
	// Functions holds, by logical ID, what the project file says of a function and a template does not.
	// A function without an entry gets its logical ID as key and the Code property's folder as package.
	Functions map[string]FunctionInfo
	// Declared holds triggers that have no form in a template (a Trigger is added as it is).
	Declared []app.Trigger
}

// FunctionInfo is what a project file says of a function and a template does not.
type FunctionInfo struct {
	Key     string
	Package app.Package
}
