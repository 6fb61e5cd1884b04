//go:build race

package oci_test

// raced says that the guests, which are this test binary, have the race detector inside.
const raced = true
