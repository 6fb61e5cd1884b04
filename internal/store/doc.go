// Package store holds the contracts of bound data: what a Resource that keeps
// things can do, whoever keeps them.
//
// Main types: [Tables], the contract of tables of Items; [Value], [Item] and
// [Number], what is in them.
//
// Guarantees, which every implementation passes storetest.Run for:
//
//  1. A Write that returned nil is durable: it survives kill -9 and loss of power.
//  2. A Write is all or nothing over all tables it names, and its functions see what
//     every Write acknowledged before left; no other Write comes between.
//  3. A read sees every Write acknowledged before it began; an index is never behind its table.
//  4. Items of a Query come in the order of their range key: text and bytes by bytes, numbers by value.
//  5. Each change of a table with a stream has one [Record], written in the transaction of the change.
//  6. Numbers are exact to 38 digits.
//
// It knows no wire protocol, no provider's error names, no HTTP and no bus.
package store
