// Package bus makes everything that is not a request durable: CloudEvents are on disk before they are acknowledged, are
// delivered to each matching Subscription until they succeed or rest as dead letters, and can be asked about.
//
// Main type: [Bus], made by [Open] over JetStream. Publish, Subscribe, PutSchedule, Redrive, Cancel and Replay only append to the log; Run owns
// Partitions, and delivers. Queues (PutQueue, Send, Receive, DeleteMessages, …) are in the same log; Poll feeds a [Consumer] from one. So are streams (PutStream, PutRecords, Iterator, GetRecords), and PollStream does the same from one.
//
// Guarantees:
//
//  1. Publish returns nil after every event is in the log and synced to disk (embedded), or acknowledged by a majority (cluster).
//  2. A published event is delivered at least once to every Subscription that stood before it in the log and matches it, or its
//     delivery ends as a dead letter with a cause, or is cancelled on request. Nothing else ends a delivery.
//  3. A second event with the same channel, source and id (and the same partitionkey) within the window is not delivered.
//  4. In an ordered Subscription the deliveries of one partitionkey run one after the other, in the order of the log, and never two at once.
//  5. The index is derived from the log alone: deleted, damaged or of an old format, it is made again, and comes out the same; the counts of Flows for
//     the day whose beginning was purged are less then.
//  6. A target that is slow or fails holds up only its own Subscription. Memory is bounded whatever is queued: publishers wait, then are refused.
//  7. A slot of a Schedule publishes at most one event: across restarts, Nodes, clocks that jump, and puts of the same Schedule. A slot that is not missed
//     publishes exactly one; what becomes of missed ones is the Schedule's policy.
//  8. An event whose chain of causes is longer than MaxHops becomes a dead letter with the cause "loop", and is not delivered.
//  9. Send returns a message without an error after it is durable. It then is in its queue until it is deleted, purged or expired, or is in the dead-letter
//     queue; what was acknowledged as deleted is not received again.
//  10. No message is given to two receivers while it is invisible, whichever Node owns the queue, and however often one is killed. Receive counts survive.
//  11. In a FIFO queue the messages of a group are received in the order of the log, and none while another of the group is in flight; a second one
//     with a dedup ID within the window is not received.
//  12. PublishTopic returns a publication without an error after it is durable, and only where the topic stands; it then is delivered as any event.
//     In a FIFO topic a second one with a dedup ID within the window is not delivered.
//  13. PutRecords returns a record without an error after it is durable. It is in its shard, once per put, until the stream's retention has passed or the stream is deleted; those of
//     one partition key stand in the order in which they were put, over splits and merges too, and sequence numbers rise with it.
//  14. A StreamMapping consumes every record that its filter keeps, or tells that it was given up. Those of a partition key are consumed in their order, and by one call
//     at a time; after a kill some come again, none is passed over. Who lost the lease cannot move a checkpoint.
//
// # Design
//
// The log is N streams of JetStream, the Partitions, of which hash(partitionkey, or source and id) chooses one. One message is a
// block of items, and is written with one sync: while it is under way, all that publishers (and the engine's outcomes) bring is
// gathered, and goes into the next block. So throughput rises with callers without a batch that could be rejected, and a
// lone caller waits for one sync only. JetStream's own message ids and atomic batches are not used: an atomic batch costs 3 ms,
// and one duplicate rejects all of it. Duplicates among what is being gathered share one place in the block; later ones are in the
// log twice, and the fold drops the second. That makes every append safe to repeat after a lost answer.
//
// Everything that happens is an item of the log: an event, the outcome of an attempt, a Subscription put or deleted, a redrive, a
// cancel, a replay and its progress, a Schedule put, deleted or fired, the taking of the lease. State is a fold over the items: fold.go holds it, and takes no clock, no random
// number and no setting but the window and MaxHops. Its result is the index, a SQLite file for each Partition (index.go), whose transactions hold
// their position in the log. It is never synced for its own sake: what a power loss takes from it is folded again. What was purged
// from the log's head is kept as a base (the Subscriptions, Schedules and queues at that position, and which items behind it are duplicates of what is gone) in the key-value bucket.
//
// A Partition is owned by one Node under a lease (lease.go). The new owner appends its epoch, folds up to it, and only then delivers;
// outcomes of older epochs that stand behind it are ignored. An owner that cannot renew stops before others may take over; they wait
// for the whole time to live on their own clocks, so clocks need not agree. One goroutine does all for a Partition (owner.go): folds, commits, and
// hands what is due to a goroutine per running batch; that one appends the outcomes, and the slot is free when the fold has read them.
// In an ordered Subscription only the head of each lane (subscription, partitionkey) is pending; others wait and are promoted by the head's end.
//
// A delivery that was under way when ebb was killed is delivered again, and that one is no attempt of its own: the Function did not fail, and AWS does not count what its
// own side fails with either ("How Lambda handles errors and retries with asynchronous invocation": system errors go back to the queue for up to the maximum age). Nothing
// is written when a delivery begins, which would cost a second sync for each. One that takes ebb down with it ends by its age. In a queue each receive counts, as in SQS.
//
// What is due is held in memory up to a bound for each Subscription; the rest stays in the index, and is taken up in order of due time. Event bodies
// are read from the log when the memory for them is used up, a block once for all that wait for it.
//
// What waits, a delivery for its next attempt or a message for its visibility, goes by the owner's own time (owner.now), which does not go back with the system's clock.
//
// A Schedule is an item of the log, in the Partition of its Tenant and name. The owner of that has a heap of what is due next, and one timer
// (clock.go). When a slot is due it appends a fired item, which carries the event; the fold publishes the event only if its slot is newer than all that this
// Schedule has fired, and was fired by the put that stands (schedulefold.go). So it is the order of the log that decides, never a clock: who fires may fire again
// whenever it is in doubt, and does so after each lost answer, takeover or put. The price is that after a clock that ran ahead and fired, the Schedule rests until
// the clock is there again; deleting and putting it anew ends that.
//
// A queue lives in the Partition that its name's hash chooses. A message is an item; so are a grant (which messages a receive gets, and until when they are
// invisible) and what settles them: deleted, visible at another time, moved, purged, expired. The fold (queuefold.go) keeps where each message stands in
// tables of the index, bodies stay in the log. The owner's goroutine (queuegive.go) chooses what a receive gets, marks it in memory, appends the grant, and
// answers when the fold has read it, in which it may be refused: the message was deleted meanwhile, or the lease is another's. So grants need no lock, and order
// comes from the log alone. Sends and deletes of standard queues are only appended, by any Node; what needs a look at the state is asked of the owner,
// which first reads what the asker has written of that queue. Dead letters are moved when a receive comes upon them: by one item within the Partition; to another one
// they are sent first, under a name that makes a second sending a duplicate, and removed when they stand there; until that is known nobody receives them. A purge gives the queue a new generation;
// the old one's rows go little by little. The purge of the log's head keeps what queues hold.
//
// Data of more than 256 KiB stand apart from what refers to them (data.go), since a block has to fit into the servers' default payload: in chunks, items of the same
// log, which are durable before the item. The item has their places, length and SHA-256, and so is as small as any other: what is held, folded and waits is small. The
// data are read where they are used: by a Filter, by a delivery when those of its Subscription leave room, by who receives or reads. What is durable, how much fits, when
// the head goes and what a kill leaves is thereby said already: a chunk whose item was never written is passed over, and goes with the head. The head that is purged from the log
// may stand before the base: from there on only chunks count, and those that are young, whose item may be on its way.
//
// A Mapping whose calls all Nodes bound together has Turns (turns.go): a poller looks until there is a message, which receives none, then waits for a turn, and receives then.
//
// A topic is an item of the log, in the Partition of its key (topicfold.go): a name that may be published to. A publication is an event on the topic's channel
// (topic.go), and what takes it are Subscriptions there. Those of a FIFO topic are all in the topic's Partition, where their dedup IDs, as the events' ids, meet.
//
// What belongs together is found by a table of trace IDs and of ids (trace.go): each event, message and Work (an Invocation beside the bus) has a row or two
// in it, and bodies stay in the log. An event without a traceparent begins a trace that follows from its channel, source and id. Who publishes what to whom is counted
// by block and kept by day (flow.go).
//
// A stream lives in one Partition too, with all its shards. A record is an item; it is in the shard that is open for its hash at that place of the log. The index has a row for each block
// and shard, and the retention is looked at when they are read; rows behind it are swept, and then the log's head may go. Splits and merges close shards and open others, in one item
// (streamfold.go). A StreamMapping is polled by the owner of the Partition (streammap.go, streamshard.go): each shard, after those before it, by a goroutine that reads ahead up to a bound, hands
// Batches to Parallel lanes by partition key, and writes as checkpoint the place before which all is done. A base keeps these places.
//
// It does not yet: spread the shards of one stream over Partitions; spread Partitions evenly over Nodes (who comes first takes
// what is free); keep a second index warm on another Node, which has to fold what it lacks when it takes over; bound the calls of one Subscription over
// all Partitions together; keep events and queues in logs of their own, so that the retention of events keeps the
// blocks of messages that stand among them.
//
// It knows nothing of engines, HTTP, functions or patterns: a Matcher is compiled by the caller, and a Deliverer takes what is due.
package bus
