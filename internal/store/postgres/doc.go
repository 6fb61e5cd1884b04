// Package postgres keeps tables in a PostgreSQL database that many Nodes may share.
//
// Main type: [Store], a store.Tables.
//
// Guarantees, besides those of the contract, which hold over all Stores of one database:
//
//  1. A Write is acknowledged when PostgreSQL has committed it with synchronous_commit on, or as the server is set where that is stronger.
//  2. A Write whose commit was sent and not answered is an error; whether it happened shows by reading. Nothing is tried again that may have happened.
//  3. While the database is away every method returns errs.Unavailable within seconds, and works again once it is back.
//  4. At most 20 connections are open, or as many more as pool_max_conns of the URL says above 8.
//  5. A schema of a newer format, or of something else, is refused and left as it is.
//  6. No error and no log line holds a password.
//
// All is in the schema "ebb". Items, indexes, expiries and Records are rows of one database table each, under the ID of the set that they
// belong to; their keys are bytea, whose order is that of bytes whatever the database's locale. A Write takes an advisory lock for each
// Item it names, in their order, reads, decides and writes in one transaction. Writes that arrive while others are on their way to the
// disk share the next transaction. Records of one stream are numbered under a lock that is held to the commit, so that who reads behind
// a number misses none.
//
// It knows nothing of what Items mean, of expressions, HTTP or the bus.
package postgres
