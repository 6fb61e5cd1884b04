// Package vfs lets SQLite keep its files sealed.
//
// Main type: [VFS], which is registered with SQLite under a name of its own; a database is opened by it with "vfs=NAME" among the
// parameters of its address.
//
// Guarantees:
//
//  1. What SQLite writes of a database or its write-ahead log is sealed before it reaches a file. A file that could hold data in
//     clear (temporary tables, statement journals, pages in a rollback journal) is refused: databases are used with
//     journal_mode(WAL) and temp_store(MEMORY).
//  2. A page that was changed, moved within its file or taken from another is SQLITE_CORRUPT, never other data. In the log, what
//     cannot be opened ends it, as a record that a crash tore does: no transaction behind it counts.
//  3. Locks, syncs and shared memory are those of SQLite's own VFS, so that what it promises after a crash holds as before.
//
// A database file is units of 4 KiB of pages, each [seal.Overhead] longer; a log is its header, and for each frame the frame's header
// and such units. The "-shm" file beside them, which is made anew at each start, stays as it is: it holds numbers of pages and
// checksums.
//
// It knows nothing of SQL, and does not notice an older state of a whole file.
package vfs
