package bus

import "time"

// Sweep sets how often what is old is removed.
func Sweep(o Options, d time.Duration) Options {
	o.sweep = d
	return o
}

// Check sets how often the clock of schedules is asked at least.
func Check(o Options, d time.Duration) Options {
	o.check = d
	return o
}

// Blocks tells f of the number of items of every block that is written.
func (b *Bus) Blocks(f func(items int)) {
	for _, p := range b.parts {
		p.log.blocks = f
	}
}
