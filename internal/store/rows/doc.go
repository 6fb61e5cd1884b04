// Package rows holds what stores of tables in rows and ordered indexes have in common.
//
// Main functions: [Key] and [IndexEntry], what an Item is found by as bytes whose order is that of the contract; [Encode] and [Decode],
// an Item as bytes; [Decide], which asks the functions of a Write.
//
// The bytes are stored ones: a change of them is a new format of every store that uses them. The order of a Scan is that of DynamoDB's
// hash of the hash key.
//
// It knows no database.
package rows
