package lambda

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

var _ guest.Batcher = (*Protocol)(nil)

// Verdict reads the answer to a Batch as Lambda's event source mappings do. An error of the function, its timeout among them, fails all Items.
// Without report any answer is a success; so it is for sources other than queues, streams and tables, which know no reports.
//
// With report, the answer is {"batchItemFailures":[{"itemIdentifier":"…"}]}, an identifier being the message ID of a queue, the sequence number
// of a stream or table. Lambda guide, "Handling errors for an SQS event source in Lambda", "Configuring partial batch response with Kinesis Data
// Streams and Lambda" and the same with DynamoDB, each under "Success and failure conditions":
//
//   - all is done: an empty or null list, an empty or null answer. An empty string and an empty array count as empty answers, and so does a list that is
//     not there under its exact name, "BatchItemFailures" included, as AWS was seen to do.
//   - all have failed: invalid JSON; an identifier that is empty, null, under a wrong key or not of the Batch. These documents do not speak
//     of an answer of another kind ("ok", 1, [1]), a list that is none, entries that are no objects and identifiers that are no strings. They
//     fail all too: an Item that comes again is better than one that is lost.
//   - an identifier named twice counts once.
//
// In a stream or table the lowest sequence number named is the checkpoint: it and everything after it has failed. In a queue, of FIFO too,
// only the named messages have.
func (p *Protocol) Verdict(b *invocation.Batch, report bool, answer []byte, failed *invocation.FunctionError) invocation.Verdict {
	if failed != nil {
		return whole(b, errs.New(errs.Failed, "%s: %s", failed.Type, failed.Message))
	}
	inOrder := b.Via == invocation.ViaStream || b.Via == invocation.ViaTable
	if !report || !inOrder && b.Via != invocation.ViaQueue {
		return invocation.Verdict{}
	}
	named, err := readReport(answer)
	if err != nil {
		return whole(b, err)
	}
	if len(named) == 0 {
		return invocation.Verdict{}
	}
	at := make(map[string][]int, len(b.Items))
	for i := range b.Items {
		id := identifier(b, i)
		at[id] = append(at[id], i)
	}
	var all []int
	for _, id := range named {
		of, ok := at[id]
		if !ok {
			return whole(b, errs.New(errs.Failed, "the answer names %q, which is not of the batch", clipped(id)))
		}
		all = append(all, of...)
	}
	slices.Sort(all)
	if inOrder {
		return invocation.Verdict{Failed: from(all[0], len(b.Items))}
	}
	return invocation.Verdict{Failed: slices.Compact(all)}
}

// identifier is how a handler names an Item.
func identifier(b *invocation.Batch, i int) string {
	if b.Via == invocation.ViaQueue {
		return b.Items[i].Event.ID
	}
	return b.Items[i].Sequence
}

// whole is the Verdict that nothing is done.
func whole(b *invocation.Batch, why error) invocation.Verdict {
	return invocation.Verdict{Failed: from(0, len(b.Items)), Err: why}
}

// from gives first to n-1.
func from(first, n int) []int {
	all := make([]int, 0, n-first)
	for i := first; i < n; i++ {
		all = append(all, i)
	}
	return all
}

// readReport gives the identifiers that an answer names, as they stand there, or says what is wrong with it.
func readReport(answer []byte) ([]string, error) {
	answer = bytes.TrimSpace(answer)
	switch string(answer) {
	case "", "null", `""`:
		return nil, nil
	}
	if !json.Valid(answer) {
		return nil, errs.New(errs.Failed, "the answer is not JSON")
	}
	if answer[0] == '[' && len(bytes.TrimSpace(answer[1:len(answer)-1])) == 0 {
		return nil, nil
	}
	// A map, because names are exact here and those of a struct are not.
	var top map[string]json.RawMessage
	if answer[0] != '{' || json.Unmarshal(answer, &top) != nil {
		return nil, errs.New(errs.Failed, "the answer is not an object with batchItemFailures")
	}
	list, ok := top["batchItemFailures"]
	if !ok || string(list) == "null" {
		return nil, nil
	}
	var entries []map[string]json.RawMessage
	if json.Unmarshal(list, &entries) != nil {
		return nil, errs.New(errs.Failed, "batchItemFailures is not a list of objects")
	}
	named := make([]string, 0, len(entries))
	for i, entry := range entries {
		raw, ok := entry["itemIdentifier"]
		var id string
		switch {
		case !ok:
			return nil, errs.New(errs.Failed, "batchItemFailures[%d] has no itemIdentifier", i)
		case raw[0] != '"' || json.Unmarshal(raw, &id) != nil:
			return nil, errs.New(errs.Failed, "batchItemFailures[%d].itemIdentifier is %s, not a string", i, clipped(string(raw)))
		case id == "":
			return nil, errs.New(errs.Failed, "batchItemFailures[%d].itemIdentifier is empty", i)
		}
		named = append(named, id)
	}
	return named, nil
}

// clipped shortens what is shown of a handler's text.
func clipped(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
