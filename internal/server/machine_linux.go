package server

import "golang.org/x/sys/unix"

// machineMemoryMB is the machine's memory in MiB.
func machineMemoryMB() int64 {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 1024
	}
	return int64(uint64(i.Totalram) * uint64(i.Unit) >> 20)
}
