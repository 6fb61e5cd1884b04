package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// TopicInfo describes a topic.
type TopicInfo struct {
	Name          string `json:"name"`
	FIFO          bool   `json:"fifo,omitempty"`
	ContentDedup  bool   `json:"contentDedup,omitempty"` // a message without a deduplication ID has the hash of its text for one
	Subscriptions int    `json:"subscriptions"`
}

// TopicMessage is what is published to a topic.
type TopicMessage struct {
	Message    string                      `json:"message"`
	Subject    string                      `json:"subject,omitempty"`
	Attributes map[string]MessageAttribute `json:"attributes,omitempty"`
	Structured bool                        `json:"structured,omitempty"` // Message is a JSON object with a text for each protocol, and one named "default"
	Group      string                      `json:"group,omitempty"`      // of a FIFO topic
	Dedup      string                      `json:"dedup,omitempty"`      // of a FIFO topic
}

// MessageAttribute is a typed value beside a message.
type MessageAttribute struct {
	Type   string `json:"type,omitempty"` // String, String.Array, Number or Binary; empty means String
	Value  string `json:"value,omitempty"`
	Binary []byte `json:"binary,omitempty"` // of a Binary, in base64
}

// PublishedMessage says that a message is durable.
type PublishedMessage struct {
	ID       string `json:"id"`
	Sequence string `json:"sequence,omitempty"`
}

// TopicSubscription describes what takes the messages of a topic.
type TopicSubscription struct {
	Name        string          `json:"name"`
	Protocol    string          `json:"protocol"`      // lambda, sqs, http or https
	Endpoint    string          `json:"endpoint"`      // name of a function or queue, or a URL
	Raw         bool            `json:"raw,omitempty"` // it gets the message alone
	DeadLetters string          `json:"deadLetters,omitempty"`
	Filter      json.RawMessage `json:"filter,omitempty"` // a filter policy
	Scope       string          `json:"scope,omitempty"`  // what the policy looks at; empty means MessageAttributes
	Pending     int             `json:"pending"`          // deliveries that have not ended
	Done        int             `json:"done"`
	Dead        int             `json:"dead"`
	Fault       string          `json:"fault,omitempty"` // why the newest of the dead is
}

// TopicBackend is what the control API needs for topics.
type TopicBackend interface {
	Topics(ctx context.Context) ([]TopicInfo, error)
	// PublishTopic returns when the message is durable, or errs.NotFound where there is no such topic.
	PublishTopic(ctx context.Context, topic string, m TopicMessage) (*PublishedMessage, error)
	TopicSubscriptions(ctx context.Context, topic string) ([]TopicSubscription, error)
}

func (s *Server) topics(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Topics(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]TopicInfo{"topics": list})
	return nil
}

func (s *Server) publishTopic(w http.ResponseWriter, r *http.Request) error {
	var m TopicMessage
	leave, err := s.intake.readJSON(w, r, s.intake.call(), &m)
	if err != nil {
		return err
	}
	defer leave()
	// Whether it was accepted must not be left open by a caller that hangs up while the disk writes.
	got, err := s.backend.PublishTopic(context.WithoutCancel(r.Context()), r.PathValue("name"), m)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusAccepted, got)
	return nil
}

func (s *Server) topicSubscriptions(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.TopicSubscriptions(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]TopicSubscription{"subscriptions": list})
	return nil
}

// Topics lists topics.
func (c *Client) Topics(ctx context.Context) ([]TopicInfo, error) {
	var out struct{ Topics []TopicInfo }
	err := c.call(ctx, "GET", "/v1/topics", nil, &out)
	return out.Topics, err
}

// PublishTopic publishes to a topic; when it returns, that is durable.
func (c *Client) PublishTopic(ctx context.Context, topic string, m TopicMessage) (*PublishedMessage, error) {
	var out PublishedMessage
	return &out, c.call(ctx, "POST", "/v1/topics/"+url.PathEscape(topic)+"/messages", m, &out)
}

// TopicSubscriptions lists what takes the messages of a topic.
func (c *Client) TopicSubscriptions(ctx context.Context, topic string) ([]TopicSubscription, error) {
	var out struct{ Subscriptions []TopicSubscription }
	err := c.call(ctx, "GET", "/v1/topics/"+url.PathEscape(topic)+"/subscriptions", nil, &out)
	return out.Subscriptions, err
}
