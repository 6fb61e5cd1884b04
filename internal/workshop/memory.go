package workshop

import (
	"fmt"
	"os"
	"strings"
)

// memory is what the machine has, in bytes; 0 where that cannot be told.
func memory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(text), "MemTotal:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); !ok || err != nil {
		return 0
	}
	return kb << 10
}
