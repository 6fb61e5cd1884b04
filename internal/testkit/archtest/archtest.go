// Package archtest holds the layout of the repository: which package may import which, that each says what it is, and
// under which licences the dependencies come.
//
// Its rules are in this package's tests, each with its reason. It does not run at run time.
package archtest
