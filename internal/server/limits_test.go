package server

import (
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
)

func TestLimits_ProcessorsFollowMemoryWhereAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode       string
		memory     int
		cpu, share int64
	}{
		{config.CPUNone, 1769, 0, 0},
		{config.CPUShared, 1769, 0, 1000},
		{config.CPUShared, 64, 0, 72},
		{config.CPUProportional, 1, 72, 72},
		{config.CPUProportional, 128, 72, 72},
		{config.CPUProportional, 1024, 578, 578},
		{config.CPUProportional, 1769, 1000, 1000},
		{config.CPUProportional, 10240, 5788, 5788},
	} {
		s := &Server{o: Options{Config: &config.Config{CPULimits: c.mode}}}
		l := s.limits(&app.Function{MemoryMB: c.memory})
		if l.MilliCPU != c.cpu || l.ShareCPU != c.share || l.MemoryBytes != int64(c.memory)<<20 || l.TmpBytes == 0 || l.Processes == 0 {
			t.Errorf("%s, %d MB: %+v, want %d and %d thousandths", c.mode, c.memory, l, c.cpu, c.share)
		}
	}
}
