// Package shape reads requests and writes answers in the forms of AWS's wire protocols, by tables made from AWS's published models.
//
// Main types: [Table], a service's operations and shapes; [Codec], one operation bound to the Go types of its input and output.
//
// Go types name what a service uses of a shape: a struct field has a member's name with a capital first letter, or says it in a tag
// (`wire:"eTag"`). What the table does not have, or has as another kind, is an error when the Codec is made, not when a request comes.
//
//	string               string, *string, or a type of string
//	integer, long        int, int32, int64 or a pointer to one
//	float, double        float64, *float64
//	boolean              bool, *bool
//	timestamp            time.Time, *time.Time
//	blob                 []byte; where it streams io.Reader
//	list, map, structure []T, map[string]T, struct or *struct
//	any                  any: map[string]any, []any, string, int64, float64, bool, []byte, time.Time
//
// A type with UnmarshalJSON and MarshalJSON reads and writes itself in the JSON protocols. In answers, zero values of fields that are
// no pointers are left out; the tag `wire:",always"` keeps them.
//
// Guarantees:
//
//  1. Reading never panics and its memory is bounded by a small multiple of what it is given.
//  2. What is read is what AWS's own reader would take: names are compared exactly, unknown members are passed over, null is absence.
//  3. A fault of a request is a [Fault] that says what and where, in no protocol's words.
//
// It knows nothing of signatures, HTTP servers and what operations mean.
package shape

//go:generate go run ./gen
