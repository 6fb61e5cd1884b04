package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// cpuPeriod is over what time MilliCPU is counted: the kernel's default. A shorter one spreads the pauses of a guest that is over
	// its limit, but what it may do before the first one gets smaller with it.
	cpuPeriod = 100 * time.Millisecond
	// leastQuota is the smallest that the kernel takes; sched-bwc.rst.
	leastQuota = time.Millisecond
	// evenShares and evenWeight are what a group has that nobody gave any.
	evenShares, evenWeight = 1024, 100
)

// boundsCPU reports whether there is something to set.
func (c *fence) boundsCPU() bool { return c.limits.MilliCPU > 0 || c.limits.ShareCPU > 0 }

// limitCPU sets what Limits say of processors.
func (c *fence) limitCPU() error {
	if c.cpu == "" {
		return nil
	}
	if err := c.share(); err != nil {
		return fmt.Errorf("share processors: %w", err)
	}
	if err := c.quota(); err != nil {
		return fmt.Errorf("limit processors to %d thousandths: %w", c.limits.MilliCPU, err)
	}
	return nil
}

// share sets the weight: cgroup-v2.rst, "cpu.weight"; sched-design-CFS.rst, "cpu.shares".
func (c *fence) share() error {
	due := c.limits.ShareCPU
	switch {
	case due <= 0:
		return nil
	case c.all.cpu.version == 1:
		return writeFile(filepath.Join(c.cpu, "cpu.shares"), strconv.FormatInt(min(max(due*evenShares/1000, 2), 1<<18), 10))
	}
	return writeFile(filepath.Join(c.cpu, "cpu.weight"), strconv.FormatInt(min(max(due*evenWeight/1000, 1), 10_000), 10))
}

// quota sets the limit, and lets a guest that was idle for a while use what it left: short requests then meet no pause.
func (c *fence) quota() error {
	if c.limits.MilliCPU <= 0 {
		return nil
	}
	quota := max(cpuPeriod*time.Duration(c.limits.MilliCPU)/1000, leastQuota)
	us := strconv.FormatInt(quota.Microseconds(), 10)
	burst := "cpu.cfs_burst_us"
	if c.all.cpu.version == 2 {
		burst = "cpu.max.burst"
		if err := writeFile(filepath.Join(c.cpu, "cpu.max"), us+" "+strconv.FormatInt(cpuPeriod.Microseconds(), 10)); err != nil {
			return err
		}
	} else {
		// A group is born with the kernel's period, which is this one.
		if err := writeFile(filepath.Join(c.cpu, "cpu.cfs_quota_us"), us); err != nil {
			return err
		}
	}
	// The most that the kernel takes is the quota itself.
	if err := writeFile(filepath.Join(c.cpu, burst), us); err != nil && !errors.Is(err, fs.ErrNotExist) { // Linux 5.14
		return err
	}
	return nil
}

// usedCPULocked is the processor time of all processes together, those included that have ended; zero where nobody counts.
func (c *fence) usedCPULocked() time.Duration {
	var buf [512]byte
	text := pread(c.mu.cpu, buf[:])
	if c.tree != "" {
		return time.Duration(field(text, "usage_usec ")) * time.Microsecond
	}
	ns, _ := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return time.Duration(ns)
}
