package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/wire/s3"
)

const (
	// ownerDocument says on a bucket which Stack declares it, retainDocument that it stays when that is removed.
	ownerDocument  = "ebb:stack"
	retainDocument = "ebb:retain"
	// expireEvery is how often what lifecycles have expire is looked for. S3 does it once a day.
	expireEvery = time.Hour
)

// bucketChannel has what happens in a bucket.
func bucketChannel(name string) string { return tenant + "/bucket/" + name }

// bucketPrefix begins the names of the Subscriptions that a bucket's notifications are, put by an API.
func bucketPrefix(name string) string { return "bucket/" + tenant + "/" + name + "/" }

func bucketID(name string) store.BucketID { return store.BucketID{Tenant: tenant, Name: name} }

// openObjects opens what buckets are kept in.
func (s *Server) openObjects(ctx context.Context) error {
	o, err := fs.Open(ctx, filepath.Join(s.o.Config.Data, objectsFolder), fs.Options{Logger: s.o.Log, Seal: s.seal.Box("objects")})
	if err != nil {
		return err
	}
	s.objects = o
	s.closing(o.Close)
	return nil
}

// bucketChanged follows a bucket that was made, deleted, or given other notifications by an API.
func (s *Server) bucketChanged(ctx context.Context, id store.BucketID) {
	if err := s.followBucket(ctx, id); err != nil {
		s.o.Log.Warn("a bucket's notifications do not follow", "bucket", id.Name, "error", err)
	}
}

func (s *Server) followBucket(ctx context.Context, id store.BucketID) error {
	b, err := s.objects.Bucket(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNoBucket) {
		return err
	}
	standing := map[string]bool{}
	for _, n := range s3.NotificationsOf(b).List {
		sub, err := s.notified(ctx, id.Name, n)
		if err != nil {
			return err
		}
		standing[sub.Name] = true
		if err := s.subscribe(ctx, sub); err != nil {
			return err
		}
	}
	if err := s.unsubscribe(ctx, func(name string) bool { return strings.HasPrefix(name, bucketPrefix(id.Name)) && !standing[name] }); err != nil {
		return err
	}
	if b.Name == "" {
		return nil
	}
	return s.watchBucket(ctx, id)
}

// watchBucket has a bucket's changes kept where somebody wants them. It is called after every change of a bucket or of its Subscriptions, and one at a
// time: of two that came together the older answer would else stand.
func (s *Server) watchBucket(ctx context.Context, id store.BucketID) error {
	s.watching.Lock()
	defer s.watching.Unlock()
	if err := s.events.bus.Sync(ctx); err != nil { // a Subscription that was put a moment ago counts
		return err
	}
	list, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return err
	}
	wanted := slices.ContainsFunc(list, func(sub bus.Subscription) bool { return sub.Channel == bucketChannel(id.Name) })
	return s.objects.SetBucket(ctx, id, func(b *store.Bucket) error {
		b.Notify = wanted || s3.NotificationsOf(*b).EventBridge
		return nil
	})
}

// notified is the Subscription of a notification.
func (s *Server) notified(ctx context.Context, bucket string, n s3.Notification) (bus.Subscription, error) {
	at, err := destinationAt(n.Target)
	if err != nil {
		return bus.Subscription{}, err
	}
	to := target{Function: at.Function, Queue: at.Queue, Topic: at.Topic, Account: s.o.Config.Account, Region: region(&app.App{}), Via: invocation.ViaBucket, Source: bucket, Label: n.ID}
	sub := bus.Subscription{Name: bucketPrefix(bucket) + n.ID, Channel: bucketChannel(bucket), Retry: managed(), Deadline: time.Minute}
	if at.Function != "" {
		if f, d, err := s.declared(ctx, at.Function); err == nil {
			name := sub.Name
			sub, to = s.async(d, f), s.targetOf(d, f)
			sub.Name, sub.Channel, sub.Subject = name, bucketChannel(bucket), ""
			to.Via, to.Source, to.Label = invocation.ViaBucket, bucket, n.ID
		}
	}
	if sub.Filter, err = bucketFilter(n); err != nil {
		return sub, err
	}
	sub.Target, err = json.Marshal(to)
	return sub, err
}

// bucketFilter is what a notification asks of an event: its type, and the key, which is its subject.
func bucketFilter(n s3.Notification) (json.RawMessage, error) {
	var events []any
	for _, e := range n.Events {
		if rest, ok := strings.CutSuffix(e, "*"); ok {
			events = append(events, map[string]any{"prefix": map[string]string{"type": rest}})
		} else {
			events = append(events, map[string]any{"exact": map[string]string{"type": e}})
		}
	}
	all := []any{map[string]any{"any": events}}
	if n.Prefix != "" {
		all = append(all, map[string]any{"prefix": map[string]string{"subject": n.Prefix}})
	}
	if n.Suffix != "" {
		all = append(all, map[string]any{"suffix": map[string]string{"subject": n.Suffix}})
	}
	filters, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return rule.Filter{Filters: filters}.Encode()
}

// declaredNotification is what a bucket's notification says in a template.
type declaredNotification struct {
	Event  string
	Filter struct {
		S3Key struct {
			Rules []struct{ Name, Value string }
		}
	}
}

func (p *declaredNotification) notification() (s3.Notification, error) {
	n := s3.Notification{Events: []string{p.Event}}
	for _, r := range p.Filter.S3Key.Rules {
		switch strings.ToLower(r.Name) {
		case "prefix":
			n.Prefix = r.Value
		case "suffix":
			n.Suffix = r.Value
		default:
			return n, errs.New(errs.Invalid, "%q is no filter rule: prefix or suffix", r.Name)
		}
	}
	return n, nil
}

// bucketTrigger is the Subscription of an s3 Trigger.
func (s *Server) bucketTrigger(d *state.Deployment, t *app.Trigger, name string) (bus.Subscription, error) {
	r := s.resolver(d)
	f := d.App.Function(t.Function)
	if f == nil {
		return bus.Subscription{}, errs.New(errs.NotFound, "there is no function %s", t.Function)
	}
	text, err := t.Source.Resolve(r.values())
	if err != nil {
		return bus.Subscription{}, err
	}
	var p declaredNotification
	if err := r.settings(t, &p); err != nil {
		return bus.Subscription{}, err
	}
	n, err := p.notification()
	if err != nil {
		return bus.Subscription{}, err
	}
	sub, to := s.async(d, f), s.targetOf(d, f)
	to.Via, to.Source = invocation.ViaBucket, lastPart(text)
	sub.Name, sub.Channel, sub.Subject = name, bucketChannel(to.Source), ""
	if sub.Filter, err = bucketFilter(n); err != nil {
		return sub, err
	}
	sub.Target, err = json.Marshal(to)
	return sub, err
}

// bucketNotices gives what declared buckets send to queues and topics.
func (s *Server) bucketNotices(d *state.Deployment, w *wanted) {
	r := s.resolver(d)
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.Bucket {
			continue
		}
		conf, _ := res.Properties["NotificationConfiguration"].(map[string]any)
		for kind, member := range map[string]string{"QueueConfigurations": "Queue", "TopicConfigurations": "Topic"} {
			for k, one := range listOf(conf[kind]) {
				sub, err := s.bucketNotice(r, res, one, member)
				if err != nil {
					w.faults = append(w.faults, fmt.Sprintf("notification of bucket %s: %v", res.ID, err))
					continue
				}
				sub.Name = triggerPrefix(d.Stack) + fmt.Sprintf("%s/%s/%d", res.ID, strings.ToLower(member), k+1)
				w.subs = append(w.subs, sub)
			}
		}
	}
}

func (s *Server) bucketNotice(r resolver, res *app.Resource, declared any, member string) (bus.Subscription, error) {
	sub := bus.Subscription{Retry: managed(), Deadline: time.Minute}
	name, err := r.physicalName(res)
	if err != nil {
		return sub, err
	}
	var p struct {
		declaredNotification
		Queue, Topic string
	}
	if err := r.properties(declared, &p); err != nil {
		return sub, err
	}
	n, err := p.notification()
	if err != nil {
		return sub, err
	}
	at, err := destinationAt(p.Queue + p.Topic)
	if err != nil {
		return sub, err
	}
	if at.Queue == "" && member == "Queue" || at.Topic == "" && member == "Topic" {
		return sub, errs.New(errs.Invalid, "%s is the ARN of no %s", p.Queue+p.Topic, strings.ToLower(member))
	}
	sub.Channel = bucketChannel(name)
	if sub.Filter, err = bucketFilter(n); err != nil {
		return sub, err
	}
	sub.Target, err = json.Marshal(target{Queue: at.Queue, Topic: at.Topic, Account: s.o.Config.Account, Region: region(r.app), Via: invocation.ViaBucket, Source: name})
	return sub, err
}

// buckets makes the buckets that an App declares what they are to be.
func (s *Server) buckets(ctx context.Context, d *state.Deployment) (faults []string) {
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.Bucket {
			continue
		}
		if err := s.putBucket(ctx, d, res); err != nil {
			faults = append(faults, fmt.Sprintf("bucket %s: %v", res.ID, err))
		}
	}
	return faults
}

func (s *Server) putBucket(ctx context.Context, d *state.Deployment, res *app.Resource) error {
	r := s.resolver(d)
	name, err := r.physicalName(res)
	if err != nil {
		return err
	}
	if !s3.ValidBucket(name) {
		return errs.New(errs.Invalid, "%q is no name of a bucket", name).WithHint("Give it 3 to 63 small letters, digits, dots and dashes.")
	}
	// Notifications name what the deploy makes after this; their Subscriptions read them for themselves.
	properties := map[string]any{}
	for k, v := range res.Properties {
		if k == "NotificationConfiguration" {
			m, _ := v.(map[string]any)
			v = pick(m, "EventBridgeConfiguration")
		}
		plain, err := r.plain(v)
		if err != nil {
			s.o.Log.Debug("a bucket's property is left out", "bucket", name, "property", k, "error", err)
			continue
		}
		properties[k] = plain
	}
	policy, err := s.policyOf(r, d, name)
	if err != nil {
		return err
	}
	owner := stackID(d.Stack)
	if err := s.objects.CreateBucket(ctx, bucketID(name), store.Bucket{Documents: map[string][]byte{ownerDocument: []byte(owner)}}); err != nil && !errors.Is(err, store.ErrBucketExists) {
		return err
	}
	return s.objects.SetBucket(ctx, bucketID(name), func(b *store.Bucket) error {
		if whose := string(b.Documents[ownerDocument]); whose != "" && whose != owner {
			return errs.New(errs.Conflict, "it belongs to %s, and stays as it is", whose)
		}
		if err := s3.Declare(b, properties); err != nil {
			return err
		}
		if policy != nil {
			if err := s3.DeclarePolicy(b, policy); err != nil {
				return err
			}
		}
		b.Documents[ownerDocument] = []byte(owner)
		if delete(b.Documents, retainDocument); res.Retain {
			b.Documents[retainDocument] = []byte("true")
		}
		return nil
	})
}

// policyOf is what a declared AWS::S3::BucketPolicy says of a bucket; nil for none.
func (s *Server) policyOf(r resolver, d *state.Deployment, bucket string) (any, error) {
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Type != "AWS::S3::BucketPolicy" {
			continue
		}
		name, err := r.plain(res.Properties["Bucket"])
		if err != nil || name != bucket {
			continue
		}
		return r.plain(res.Properties["PolicyDocument"])
	}
	return nil, nil
}

// watchBuckets has the changes of the buckets kept that a Deployment declares, whose Triggers may be another's, and of those that its Triggers are on. Of
// one that is not there yet it tells.
func (s *Server) watchBuckets(ctx context.Context, d *state.Deployment, subs []bus.Subscription) (faults []string) {
	r := s.resolver(d)
	names := map[string]bool{} // by name, whether a Trigger is on it
	for i := range d.App.Resources {
		if res := &d.App.Resources[i]; res.Kind == app.Bucket {
			if name, err := r.physicalName(res); err == nil {
				names[name] = false
			}
		}
	}
	for _, sub := range subs {
		if name, ok := strings.CutPrefix(sub.Channel, bucketChannel("")); ok {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		err := s.watchBucket(ctx, bucketID(name))
		switch {
		case errors.Is(err, store.ErrNoBucket) && names[name]:
			faults = append(faults, fmt.Sprintf("bucket %s is not there yet: its triggers begin when it is created", name))
		case err != nil && !errors.Is(err, store.ErrNoBucket): // of a declared one that could not be made is told already
			faults = append(faults, err.Error())
		}
	}
	return faults
}

// dropBuckets deletes the buckets of a removed Stack. One that holds objects stays: nobody has said that they may go.
func (s *Server) dropBuckets(ctx context.Context, k state.StackKey) error {
	list, err := s.objects.Buckets(ctx, tenant)
	if err != nil {
		return err
	}
	for _, b := range list {
		if string(b.Documents[ownerDocument]) != stackID(k) {
			continue
		}
		if b.Documents[retainDocument] == nil {
			err := s.objects.DeleteBucket(ctx, bucketID(b.Name))
			if err == nil || errors.Is(err, store.ErrNoBucket) {
				continue
			}
			if !errors.Is(err, store.ErrBucketNotEmpty) {
				return err
			}
			s.o.Log.Warn("a bucket of a removed stack holds objects, and stays", "bucket", b.Name, "stack", stackID(k))
		}
		if err := s.objects.SetBucket(ctx, bucketID(b.Name), func(b *store.Bucket) error { delete(b.Documents, ownerDocument); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// runObjects tells the bus what happens in buckets, and lets expire what is to, until ctx ends.
func (s *Server) runObjects(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := s.tellChanges(ctx); err != nil && ctx.Err() == nil {
				s.o.Log.Warn("what happened in buckets cannot be told; it is tried again", "error", err)
				wait(ctx, time.Second)
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			s.expireObjects(ctx)
			wait(ctx, expireEvery)
		}
	})
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tellChanges publishes what the store keeps of changes, and has it forget them. The events of one change have the same ids each time.
func (s *Server) tellChanges(ctx context.Context) error {
	list, err := s.objects.Changes(ctx, 100)
	if err != nil {
		return err
	}
	var events []*event.Event
	for _, c := range list {
		made, err := s.changeEvents(ctx, c)
		if err != nil {
			return err
		}
		events = append(events, made...)
	}
	if len(events) > 0 {
		if _, err := s.events.bus.Publish(ctx, events...); err != nil {
			return err
		}
	}
	return s.objects.ForgetChanges(ctx, list[len(list)-1].Seq)
}

// changeEvents are those of a change: one on the bucket's channel, and one on the event bus where the bucket asks for it.
func (s *Server) changeEvents(ctx context.Context, c store.ObjectChange) ([]*event.Event, error) {
	account, reg, name := s.o.Config.Account, region(&app.App{}), c.Bucket.Name
	e := &event.Event{
		ID: fmt.Sprintf("%016x-%x", c.Seq, c.Time.UnixMilli()), Source: "arn:aws:s3:::" + name, Type: "s3:" + c.Event.Name, Subject: c.Key, Time: c.Time,
		DataContentType: "application/json", Data: s3.Record(c, "ebb", reg, account),
	}
	if e.Validate(0) != nil { // a key may hold what no subject may
		e.Subject = s3.EncodeKey(c.Key)
	}
	e.SetExtension(bus.Channel, bucketChannel(name))
	e.SetExtension(bus.TraceParent, bus.TraceContext(e))
	out := []*event.Event{e}
	b, err := s.objects.Bucket(ctx, c.Bucket)
	if err != nil && !errors.Is(err, store.ErrNoBucket) {
		return nil, err
	}
	if s3.NotificationsOf(b).EventBridge {
		kind, detail := s3.Detail(c, account)
		n, err := event.FromEntry(event.Entry{ID: uuid8("ebb bucket event", name, e.ID), Source: "aws.s3", DetailType: kind, Detail: detail, Time: c.Time, Resources: []string{"arn:aws:s3:::" + name}})
		if err != nil {
			return nil, err
		}
		s.stamp(defaultBus, []*event.Event{n})
		out = append(out, n)
	}
	return out, nil
}

// expireObjects deletes what lifecycles have expire.
func (s *Server) expireObjects(ctx context.Context) {
	list, err := s.objects.Buckets(ctx, tenant)
	if err == nil {
		for _, b := range list {
			n, gone := s3.Expire(ctx, s.objects, bucketID(b.Name), time.Now())
			if n > 0 {
				s.o.Log.Info("objects expired by their bucket's lifecycle", "bucket", b.Name, "number", n)
			}
			err = errors.Join(err, gone)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.o.Log.Warn("what lifecycles have expire cannot be deleted; it is tried again", "error", err)
	}
}
