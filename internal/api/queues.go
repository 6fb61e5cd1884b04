package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// QueueInfo describes a queue.
type QueueInfo struct {
	Name        string    `json:"name"`
	FIFO        bool      `json:"fifo,omitempty"`
	DeadLetters string    `json:"deadLetters,omitempty"` // the queue that takes what was received MaxReceives times
	MaxReceives int       `json:"maxReceives,omitempty"`
	Visible     int       `json:"visible"`
	InFlight    int       `json:"inFlight"`
	Delayed     int       `json:"delayed"`
	Oldest      time.Time `json:"oldest,omitzero"` // when the oldest message was sent
}

// QueueMessage is a message to be sent.
type QueueMessage struct {
	Body  string `json:"body"`
	Group string `json:"group,omitempty"` // of a FIFO queue
	Dedup string `json:"dedup,omitempty"` // of a FIFO queue
}

// SentMessage says that a message is durable.
type SentMessage struct {
	ID        string `json:"id"`
	Sequence  string `json:"sequence,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"` // it was sent before, and dropped
	Code      string `json:"code,omitempty"`      // of several: why this one is not sent, and then it has no ID
	Error     string `json:"error,omitempty"`
}

// QueueBackend is what the control API needs for queues.
type QueueBackend interface {
	Queues(ctx context.Context) ([]QueueInfo, error)
	// SendMessage returns when the message is durable.
	SendMessage(ctx context.Context, queue string, m QueueMessage) (*SentMessage, error)
	// SendMessages does so with several at once, and has a result for each.
	SendMessages(ctx context.Context, queue string, all []QueueMessage) ([]SentMessage, error)
	PurgeQueue(ctx context.Context, queue string) error
	// RedriveQueue moves a dead-letter queue's messages back to where they came from, or all to another queue, and tells how many.
	RedriveQueue(ctx context.Context, queue, to string) (int, error)
}

func (s *Server) queues(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Queues(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]QueueInfo{"queues": list})
	return nil
}

func (s *Server) sendMessage(w http.ResponseWriter, r *http.Request) error {
	var m QueueMessage
	leave, err := s.intake.readJSON(w, r, s.intake.call(), &m)
	if err != nil {
		return err
	}
	defer leave()
	// Whether it was accepted must not be left open by a caller that hangs up while the disk writes.
	got, err := s.backend.SendMessage(context.WithoutCancel(r.Context()), r.PathValue("name"), m)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusAccepted, got)
	return nil
}

// maxMessages bounds a call that sends several messages.
const maxMessages = 1000

func (s *Server) sendMessages(w http.ResponseWriter, r *http.Request) error {
	var all []QueueMessage
	leave, err := s.intake.readJSON(w, r, s.intake.calls(), &all)
	if err != nil {
		return err
	}
	defer leave()
	if len(all) == 0 || len(all) > maxMessages {
		return errs.New(errs.Invalid, "%d messages; one call takes 1 to %d", len(all), maxMessages)
	}
	got, err := s.backend.SendMessages(context.WithoutCancel(r.Context()), r.PathValue("name"), all)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusAccepted, got)
	return nil
}

func (s *Server) purgeQueue(w http.ResponseWriter, r *http.Request) error {
	if err := s.backend.PurgeQueue(context.WithoutCancel(r.Context()), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) redriveQueue(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		To string `json:"to"`
	}
	if err := readJSON(w, r, 1<<16, &req); err != nil {
		return err
	}
	n, err := s.backend.RedriveQueue(r.Context(), r.PathValue("name"), req.To)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string]int{"moved": n})
	return nil
}

// Queues lists queues.
func (c *Client) Queues(ctx context.Context) ([]QueueInfo, error) {
	var out struct{ Queues []QueueInfo }
	err := c.call(ctx, "GET", "/v1/queues", nil, &out)
	return out.Queues, err
}

func queuePath(name, rest string) string { return "/v1/queues/" + url.PathEscape(name) + rest }

// SendMessage puts a message into a queue; when it returns, that is durable.
func (c *Client) SendMessage(ctx context.Context, queue string, m QueueMessage) (*SentMessage, error) {
	var out SentMessage
	return &out, c.call(ctx, "POST", queuePath(queue, "/messages"), m, &out)
}

// SendMessages puts up to 1000 messages into a queue. The result of one that is not sent has a code.
func (c *Client) SendMessages(ctx context.Context, queue string, all []QueueMessage) ([]SentMessage, error) {
	var out []SentMessage
	return out, c.call(ctx, "POST", queuePath(queue, "/messages/batch"), all, &out)
}

// PurgeQueue removes all messages of a queue.
func (c *Client) PurgeQueue(ctx context.Context, queue string) error {
	return c.call(ctx, "POST", queuePath(queue, "/purge"), map[string]any{}, nil)
}

// RedriveQueue moves a dead-letter queue's messages back to where they came from, or where to is given all to that queue, and tells how many.
func (c *Client) RedriveQueue(ctx context.Context, queue, to string) (int, error) {
	var out struct{ Moved int }
	err := c.call(ctx, "POST", queuePath(queue, "/redrive"), map[string]string{"to": to}, &out)
	return out.Moved, err
}
