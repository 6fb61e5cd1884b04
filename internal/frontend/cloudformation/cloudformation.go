// Package cloudformation turns a CloudFormation template into an App.
//
// Main type: [Template]. Other AWS formats (serverless.yml, SAM) compile to a Template and
// come through [Load] as well, so that the meaning of a resource type is written once. [New] is the
// front-end of plain templates.
//
// Guarantees:
//
//  1. Parameters, Mappings, Conditions and intrinsics are evaluated as far as the template
//     says; what only a deploy knows stays an app.Value.
//  2. A resource type without meaning here becomes an app.Foreign Resource with its properties. A route or
//     trigger that leads to no function of the template stays one too, and there is a warning.
//  3. Every logical ID that a Value of the App refers to is the ID of a Function, API, Role, Trigger or Resource.
//  4. Diagnostics carry the place of the Node they are about, whichever file it came from; one fault is said once.
//  5. Reading and evaluating are bounded in steps and bytes: no document makes them run away.
//
// The Settings of a Trigger are the properties of the declaring resource under their CloudFormation names: BatchSize
// and FilterCriteria of an event source mapping; Event and Filter of a bucket's notification; EventPattern, Input,
// InputPath and InputTransformer of a rule; FilterPolicy of a subscription; FilterPattern of a log filter; Sql of an
// IoT rule; Trigger (the hook's name) of a user pool. Source is the ARN or name as declared.
//
// It does not run transforms or macros, and reads no routes from OpenAPI documents.
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
	// Layers holds, by logical ID, which files of a layer's folder are in it: globs in order, "!" excludes, the last match wins.
	Layers map[string][]string
	// LayerFiles is app.App.LayerFiles, beside what the template's Metadata says.
	LayerFiles map[string]string
	// Declared holds triggers that have no form in a template (a Trigger is added as it is).
	Declared []app.Trigger
}

// FunctionInfo is what a project file says of a function and a template does not.
type FunctionInfo struct {
	Key         string
	Package     app.Package
	Provisioned int    // Instances kept, beside those that the template declares
	Isolation   string // app.Function.Isolation, before what the template's Metadata says
}
