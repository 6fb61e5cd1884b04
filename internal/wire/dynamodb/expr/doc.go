// Package expr is DynamoDB's expression language: conditions, key conditions,
// filters, projections and updates, and the older parameters that say the same.
//
// Main types: [Condition], [Projection] and [Update], each parsed in a [Scope] of
// placeholders and then asked about Items.
//
// Guarantees:
//
//  1. What does not parse is a [Fault] whose text is DynamoDB's, without the words that
//     name the parameter.
//  2. An Update leaves the Item it gets as it is, and shares what it does not change.
//  3. Parsing takes time in proportion to the text; nesting is bounded.
//
// It does no I/O and knows no table, store or request.
package expr
