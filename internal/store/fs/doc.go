// Package fs keeps objects in files and what is said of them in SQLite: the embedded implementation of [store.Objects].
//
// Main type: [Store], opened on a folder that no other process uses. A database holds buckets, versions, uploads and changes; files hold data:
// one for each body above [inlineMost], named by a number and never changed once it is named in the database. An object lists the files
// (whole or in part) that it is made of, so that completing an upload and copying write no data.
//
// Guarantees:
//
//  1. What was acknowledged is there after a kill and after a loss of power: the file and its folder are synced, then the transaction that
//     names the file is committed with synchronous=FULL, then the caller hears of it. Waiting writers share one transaction.
//  2. What is half written is never seen, since only the database names what exists. Files that a crash left behind are removed by the next
//     Open, which looks only at those whose numbers were in use.
//  3. Every block of data is stored with a checksum over it, its file's number and its place, and verified before a byte of it is given.
//  4. A version that is open for reading stays readable when it is deleted; its files go when the last reader has closed it.
//  5. A database of a newer format is refused untouched.
//
// It knows nothing of HTTP, of XML, of who may do what, and of when objects expire.
package fs
