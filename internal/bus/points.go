package bus

// Point names a moment in the life of a message at which a test may end the process. Options.Passing is told of each passage.
type Point string

// The points, in the order in which a delivery or a message of a queue passes them.
const (
	AtAccepted  Point = "accepted"  // durable, and its publisher or sender not answered yet
	AtMatched   Point = "matched"   // folded into the index, in a transaction that is not committed yet
	AtDequeued  Point = "dequeued"  // taken up, and its target not called yet
	AtEnded     Point = "ended"     // the target has returned, and that is not written yet
	AtMoving    Point = "moving"    // dead letters were chosen; where their queue is in another Partition they stand there already
	AtRedriving Point = "redriving" // the same of a queue's redrive; that of deliveries is written, and not answered yet
)

// passes tells of a passage. Without somebody who is told it costs a comparison.
func (b *Bus) passes(p Point) {
	if b.opt.Passing != nil {
		b.opt.Passing(p)
	}
}
