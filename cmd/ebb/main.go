// Command ebb is a serverless cloud in one binary.
package main

import (
	"os"

	"github.com/ebb-run/ebb/internal/cli"
)

func main() { os.Exit(cli.Main(cli.OS(), os.Args[1:])) }
