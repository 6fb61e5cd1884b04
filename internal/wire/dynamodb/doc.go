// Package dynamodb answers DynamoDB's API, and that of its streams, from tables of package store.
//
// Main functions: [New] and [NewStreams], which give the wire.Service of each.
//
// Guarantees:
//
//  1. A request is checked in DynamoDB's order, and what is wrong is said in its words.
//  2. A condition and the update behind it are evaluated in the store's one writer: no other
//     write comes between them.
//  3. Every read is consistent, whether asked to be or not.
//  4. A Query reads what its key condition names, in the order of an index, and nothing else.
//
// Tables are there as soon as CreateTable has answered. Capacity is counted, never enforced.
//
// It knows nothing of where tables are kept, of HTTP servers, signatures and functions.
package dynamodb
