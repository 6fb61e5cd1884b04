package bus

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Topic is a place to publish to. What is published is an event on the topic's channel, and goes to every Subscription there.
type Topic struct {
	Tenant       string `json:"tenant,omitempty"` // empty means DefaultTenant
	Name         string `json:"name"`
	FIFO         bool   `json:"fifo,omitempty"`         // the name then ends in ".fifo", and only then
	ContentDedup bool   `json:"contentDedup,omitempty"` // FIFO: a publication without a dedup ID has the hash of its message for one
	GroupDedup   bool   `json:"groupDedup,omitempty"`   // FIFO: dedup IDs are looked for in their group alone
	// Tags are the caller's own, kept and given back.
	Tags map[string]string `json:"tags,omitempty"`
}

// Key names the topic among all: tenant and name. Where a method takes a topic, a name alone means one of the DefaultTenant.
func (t Topic) Key() string { return queueKey(t.Tenant, t.Name) }

// TopicChannel is the channel that has what is published to a topic.
func TopicChannel(name string) string {
	tenant, name, _ := strings.Cut(queueKey("", name), "/")
	return tenant + "/topic/" + name
}

// Extensions of the event that a publication is. Its group is the extension PartitionKey, its message the data, its subject the subject.
const (
	extAttributes = "ebbattributes" // message attributes: JSON, as bytes
	extDedup      = "ebbdedup"      // dedup ID
	extStructured = "ebbstructured" // the message is JSON with a text for each protocol
)

// Limits of topics, those of SNS where it has one: Amazon SNS API reference, CreateTopic and Publish.
const (
	maxTopicName     = 256
	maxSubject       = 100                    // characters
	NotificationType = "run.ebb.notification" // type of the events that publications are
	publishSource    = "/topics/"
)

// validate tells what is wrong with the settings.
func (t *Topic) validate() error {
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "topic %s: %s", clip(t.Name), fmt.Sprintf(format, args...))
	}
	switch {
	case !queueName(strings.TrimSuffix(t.Name, fifoSuffix)) || len(t.Name) > maxTopicName:
		return bad("a name has 1 to %d letters, digits, - and _; that of a FIFO topic ends in %s", maxTopicName, fifoSuffix)
	case strings.ContainsAny(t.Tenant, "/ \x00") || len(t.Tenant) > maxQueueName:
		return bad("the tenant %q is not a name", clip(t.Tenant))
	case t.FIFO != strings.HasSuffix(t.Name, fifoSuffix):
		return bad("the names of FIFO topics end in %s, and no others", fifoSuffix)
	case !t.FIFO && (t.ContentDedup || t.GroupDedup):
		return bad("only FIFO topics know duplicates")
	case len(t.Tags) > maxQueueTags:
		return bad("it has more than %d tags", maxQueueTags)
	}
	return nil
}

// Publication is what is published to a topic.
type Publication struct {
	ID         string // of a standard topic; empty: a UUID is made. A second one with it within the window is dropped
	Message    []byte // text
	Subject    string
	Attributes map[string]invocation.Attribute
	Structured bool   // the message is a JSON object with a text for each protocol, and one named "default"
	Group      string // FIFO: required, and a Subscription gets its publications in order
	Dedup      string // FIFO: a second publication with it within the window is accepted and dropped
	Trace      string // trace context, as the publisher gave it
	// Cause is the event because of which this is published, or nil: what is published counts as caused by it.
	Cause             *event.Event
	Parent, Publisher string // as the extensions of an event
}

// size is what counts against Options.MaxData.
func (p *Publication) size() int {
	m := Message{Body: p.Message, Attributes: p.Attributes}
	return m.Size()
}

func (p *Publication) validate(t *Topic, most int) error {
	bad := func(format string, args ...any) *errs.Error { return errs.New(errs.Invalid, format, args...) }
	switch {
	case len(p.Message) == 0:
		return bad("the publication has no message")
	case !utf8.Valid(p.Message):
		return bad("the message is not text").WithHint("Topics take UTF-8 alone; put bytes into a binary attribute, or encode them.")
	case p.size() > most:
		return errs.New(errs.TooLarge, "the publication has %d bytes, a topic takes %d", p.size(), most).
			WithHint("The setting max-event raises that; or put large data into a bucket and publish a reference to it.")
	case p.size()-len(p.Message) > maxAttributeBytes:
		return errs.New(errs.TooLarge, "the publication's attributes have %d bytes, the limit is %d", p.size()-len(p.Message), maxAttributeBytes).WithHint("Put them into the message.")
	case utf8.RuneCountInString(p.Subject) >= maxSubject || !plainText(p.Subject):
		return bad("a subject is text of fewer than %d characters, without line breaks and control characters", maxSubject)
	case !visibleASCII(p.Group) || !visibleASCII(p.Dedup):
		return bad("a group or dedup ID has up to %d letters, digits and signs of ASCII, without spaces", maxGroup)
	case t.FIFO && p.Group == "":
		return bad("a publication to a FIFO topic needs a group")
	case t.FIFO && p.Dedup == "" && !t.ContentDedup:
		return bad("a publication to this FIFO topic needs a dedup ID").WithHint("Give one, or turn on deduplication by content.")
	case !t.FIFO && p.Dedup != "":
		return bad("a publication to a standard topic has no dedup ID")
	case len(p.Trace) > 1024 || len(p.ID) > maxGroup:
		return bad("the ID or the trace context of the publication is too long")
	}
	if p.Structured {
		if _, err := structure(p.Message); err != nil {
			return err
		}
	}
	return checkAttributes(p.Attributes)
}

// plainText says whether a CloudEvent's attribute can hold a text.
func plainText(s string) bool {
	e := event.Event{ID: "1", Source: "/s", Type: "t", Subject: s}
	return e.Validate(0) == nil
}

func visibleASCII(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= maxGroup
}

// checkAttributes holds message attributes to SNS's rules: SNS developer guide, "Message attribute items and validation".
func checkAttributes(all map[string]invocation.Attribute) error {
	for name, a := range all {
		bad := func(format string, args ...any) error {
			return errs.New(errs.Invalid, "message attribute %s: %s", clip(name), fmt.Sprintf(format, args...))
		}
		kind, _, _ := strings.Cut(a.Type, ".")
		switch {
		case !queueName(strings.ReplaceAll(name, ".", "")) || len(name) > 256 || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
			return bad("a name has up to 256 letters, digits, _, - and single dots inside")
		case kind == "Binary":
			if len(a.Binary) == 0 {
				return bad("it has no value")
			}
			continue
		case a.Text == "":
			return bad("it has no value")
		case !utf8.ValidString(a.Text):
			return bad("its value is not text")
		case kind == "Number":
			if _, err := strconv.ParseFloat(a.Text, 64); err != nil {
				return bad("%q is no number", clip(a.Text))
			}
		case a.Type == "String.Array":
			var list []any
			if json.Unmarshal([]byte(a.Text), &list) != nil {
				return bad("%q is no JSON array", clip(a.Text))
			}
		case kind != "String":
			return bad("%q is no type: String, String.Array, Number or Binary", clip(a.Type))
		}
	}
	return nil
}

// structure reads a message with a text for each protocol.
func structure(message []byte) (map[string]json.RawMessage, error) {
	var texts map[string]json.RawMessage
	var def string
	if json.Unmarshal(message, &texts) != nil || json.Unmarshal(texts["default"], &def) != nil || string(texts["default"]) == "null" {
		return nil, errs.New(errs.Invalid, "a message with a text for each protocol is a JSON object with a string named \"default\"")
	}
	return texts, nil
}

// dedup gives the publication's dedup ID, empty in a standard topic.
func (p *Publication) dedup(t *Topic) string {
	if !t.FIFO || p.Dedup != "" {
		return p.Dedup
	}
	sum := sha256.Sum256(p.Message)
	return hex.EncodeToString(sum[:])
}

// event makes the event that a publication to the topic is. In a FIFO topic its id follows from the dedup ID, so that the fold drops a second one.
func (k *knownTopic) event(p *Publication) *event.Event {
	e := &event.Event{ID: p.ID, Source: publishSource + k.spec.Name, Type: NotificationType, Subject: p.Subject, Time: time.Now().UTC(),
		DataContentType: "text/plain; charset=utf-8", Data: p.Message}
	if json.Valid(p.Message) {
		e.DataContentType = "application/json"
	}
	if dedup := p.dedup(&k.spec); dedup != "" {
		within := ""
		if k.spec.GroupDedup {
			within = strconv.Itoa(len(p.Group)) + "/" + p.Group
		}
		// The topic's number: one that was deleted and made again knows none of the old one's.
		h := hashOf("topic", strconv.FormatInt(k.id, 16), within+"\x00"+dedup)
		e.ID = uuidOf(h)
		e.SetExtension(extDedup, dedup)
	}
	if e.ID == "" {
		e.ID = uuid()
	}
	if p.Group != "" {
		e.SetExtension(PartitionKey, p.Group)
	}
	if p.Trace != "" {
		e.SetExtension("traceparent", p.Trace)
	}
	if p.Structured {
		e.SetExtension(extStructured, true)
	}
	SetAttributes(e, p.Attributes)
	if p.Cause != nil {
		Caused(e, p.Cause)
	}
	if p.Publisher != "" {
		e.SetExtension(Parent, p.Parent)
		e.SetExtension(Publisher, p.Publisher)
	}
	e.SetExtension(Channel, TopicChannel(k.spec.Key()))
	return e
}

// uuidOf makes a UUID of a hash: version 8, which is free for such use.
func uuidOf(h hash) string {
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:])
}

// SetAttributes puts message attributes on an event.
func SetAttributes(e *event.Event, all map[string]invocation.Attribute) {
	if len(all) == 0 {
		e.SetExtension(extAttributes, nil)
		return
	}
	data, err := json.Marshal(all)
	if err != nil { // texts and bytes always encode
		panic("bus: message attributes do not encode: " + err.Error())
	}
	e.SetExtension(extAttributes, data)
}

// Attributes gives the message attributes of an event. What is none that SetAttributes wrote gives nil.
func Attributes(e *event.Event) map[string]invocation.Attribute {
	data, ok := e.Extensions[extAttributes].([]byte)
	if !ok {
		var err error
		if data, err = base64.StdEncoding.DecodeString(e.Extension(extAttributes)); err != nil {
			return nil
		}
	}
	var all map[string]invocation.Attribute
	if len(data) == 0 || json.Unmarshal(data, &all) != nil {
		return nil
	}
	return all
}

// Dedup gives the dedup ID of an event that was published to a FIFO topic, or "".
func Dedup(e *event.Event) string { return e.Extension(extDedup) }

// MessageFor gives the text of a publication for a protocol ("lambda", "sqs", "http", "https").
func MessageFor(e *event.Event, protocol string) []byte {
	if e.Extension(extStructured) != "true" {
		return e.Data
	}
	texts, err := structure(e.Data)
	if err != nil { // it was checked when it was published
		return e.Data
	}
	for _, name := range []string{protocol, "default"} {
		var text string
		if json.Unmarshal(texts[name], &text) == nil && string(texts[name]) != "null" {
			return []byte(text)
		}
	}
	return e.Data
}

// Noted is what became of one Publication.
type Noted struct {
	ID       string
	Sequence string // FIFO: decimal, of 20 digits; rises within the topic
	Err      error
}

// PublishTopic returns when the publications are durable, with a result for each. Its error is for what concerns all: NotFound where there is no such
// topic; a Node may not know for up to a second that another one has deleted it. After an error of an entry with the code Unavailable, Throttled or
// Timeout that one may have been published all the same. The publications of one group stand in the log in their order.
func (b *Bus) PublishTopic(ctx context.Context, name string, all ...Publication) ([]Noted, error) {
	k, err := b.topic(ctx, name)
	if err != nil {
		return nil, err
	}
	out := make([]Noted, len(all))
	requests := make([]*request, len(all))
	parts := make([]*partition, len(all))
	for i := range all {
		if out[i].Err = all[i].validate(&k.spec, b.opt.MaxData); out[i].Err != nil {
			continue
		}
		e := k.event(&all[i])
		if out[i].Err = e.Validate(b.opt.MaxData + MaxHead); out[i].Err != nil {
			continue
		}
		// The dedup IDs of a FIFO topic are looked for in one Partition.
		parts[i] = b.partitionOf(e, hashEvent(e))
		if k.spec.FIFO {
			parts[i] = b.partitionOfTopic(k.spec.Key())
		}
		r := &request{items: []item{eventItem(e)}, done: make(chan struct{})}
		if out[i].Err = parts[i].log.enqueue(ctx, r); out[i].Err == nil { // the order of the queue is the order of the log
			requests[i], out[i].ID = r, e.ID
		}
	}
	for i, r := range requests {
		if r == nil {
			continue
		}
		at, err := parts[i].log.wait(ctx, r)
		if err != nil {
			out[i].Err = fmt.Errorf("publish: %w", err)
		} else if k.spec.FIFO {
			out[i].Sequence = sequence(at.seq, at.first)
		}
	}
	return out, nil
}

func (b *Bus) partitionOfTopic(key string) *partition {
	h := hashOf("topic", key, "")
	return b.parts[binary.LittleEndian.Uint64(h[8:])%uint64(len(b.parts))]
}

// knownTopics are the topics that this Node has used lately.
type knownTopics struct {
	mu struct {
		sync.Mutex
		m map[string]*knownTopic
	}
}

// knownTopic is a topic as its owner told of it; immutable.
type knownTopic struct {
	spec Topic
	id   int64
	at   time.Time
}

// topic gives a topic's settings, which are used for knownFor before they are asked for again.
func (b *Bus) topic(ctx context.Context, name string) (*knownTopic, error) {
	key := queueKey("", name)
	b.topics.mu.Lock()
	k := b.topics.mu.m[key]
	b.topics.mu.Unlock()
	if k != nil && time.Since(k.at) < knownFor {
		return k, nil
	}
	r, err := b.ask(ctx, b.partitionOfTopic(key), question{Topics: &topicPage{Key: key}})
	if err != nil {
		return nil, err
	}
	if len(r.Topics) == 0 {
		return nil, errs.New(errs.NotFound, "there is no topic %s", clip(key)).WithHint("`ebb topics ls` lists them.")
	}
	k = &knownTopic{spec: r.Topics[0].Spec, id: r.Topics[0].ID, at: time.Now()}
	b.topics.mu.Lock()
	defer b.topics.mu.Unlock()
	if b.topics.mu.m == nil || len(b.topics.mu.m) >= maxKnown {
		b.topics.mu.m = map[string]*knownTopic{}
	}
	b.topics.mu.m[key] = k
	return k, nil
}

func (b *Bus) forgetTopic(key string) {
	b.topics.mu.Lock()
	defer b.topics.mu.Unlock()
	delete(b.topics.mu.m, key)
}

// Topic tells of one topic.
func (b *Bus) Topic(ctx context.Context, name string) (Topic, error) {
	b.forgetTopic(queueKey("", name))
	k, err := b.topic(ctx, name)
	if err != nil {
		return Topic{}, err
	}
	return k.spec, nil
}

// PutTopic makes a topic, or changes the settings of the one with its name. It returns when every Node that asks the owner sees it.
func (b *Bus) PutTopic(ctx context.Context, t Topic) error {
	if t.Tenant == "" {
		t.Tenant = DefaultTenant
	}
	if err := t.validate(); err != nil {
		return err
	}
	it := jsonItem(kindTopic, topicPut{t})
	if it.size() > maxSpec {
		return errs.New(errs.TooLarge, "topic %s has %d bytes, the limit is %d", clip(t.Name), it.size(), maxSpec)
	}
	return b.putTopic(ctx, t.Key(), it)
}

// DeleteTopic deletes a topic; what was published to it is delivered, and the Subscriptions on its channel stand. To delete what is not there is an
// error with the code NotFound.
func (b *Bus) DeleteTopic(ctx context.Context, name string) error {
	if _, err := b.Topic(ctx, name); err != nil {
		return err
	}
	key := queueKey("", name)
	return b.putTopic(ctx, key, jsonItem(kindTopicDelete, topicDeletion{key}))
}

func (b *Bus) putTopic(ctx context.Context, key string, it item) error {
	p := b.partitionOfTopic(key)
	at, err := p.log.append(ctx, []item{it})
	if err != nil {
		return err
	}
	defer b.forgetTopic(key)
	_, err = b.ask(ctx, p, question{Reach: at.seq})
	return err
}

// Topics gives all topics, by tenant and name.
func (b *Bus) Topics(ctx context.Context) ([]Topic, error) {
	var out []Topic
	for _, p := range b.parts {
		for page := (topicPage{}); ; {
			r, err := b.ask(ctx, p, question{Topics: &page})
			if err != nil {
				return nil, err
			}
			for _, t := range r.Topics {
				out = append(out, t.Spec)
			}
			if !r.More || len(r.Topics) == 0 {
				break
			}
			page.After = out[len(out)-1].Key()
		}
	}
	sort.Slice(out, func(i, k int) bool { return out[i].Key() < out[k].Key() })
	return out, nil
}
