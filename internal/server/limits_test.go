package server

import (
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/sandbox"
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

// traits is a driver of which only these are asked.
type traits struct {
	sandbox.Driver
	all sandbox.Traits
}

func (t traits) Traits() sandbox.Traits { return t.all }

func TestDeclares_CountsWhatASandboxTakesBesides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		all  sandbox.Traits
		want int
	}{
		{sandbox.Traits{}, 128},
		{sandbox.Traits{Mounts: true}, 128 + 512/8},
		{sandbox.Traits{Mounts: true, OwnBytes: 64 << 20}, 128 + 512/8 + 64},
	} {
		s := &Server{driver: traits{all: c.all}}
		if got := s.declares(&app.Function{MemoryMB: 128}); got != c.want {
			t.Errorf("%+v: %d MB, want %d", c.all, got, c.want)
		}
	}
}
