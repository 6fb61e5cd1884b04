//go:build !race

package oci_test

const raced = false
