// Package sqlite keeps tables in one SQLite file.
//
// Main type: [Store], a store.Tables.
//
// Guarantees, besides those of the contract:
//
//  1. One goroutine writes. Writes that arrive while it waits for the disk share the next
//     transaction, so that one sync serves them all.
//  2. Memory is bounded by the page caches and by what callers hold; no read holds up a write.
//  3. A file of a newer format, or of something else, is refused and left as it is, and
//     so is one that another process has open.
//  4. On a full disk a Write is refused with errs.Unavailable, and what stood stands.
//
// An Item is one row, found by its encoded key; an index is a table of keys beside it in the same
// transaction. The order of a Scan is that of DynamoDB's hash of the hash key.
//
// It knows nothing of what Items mean, of expressions, HTTP or the bus.
package sqlite
