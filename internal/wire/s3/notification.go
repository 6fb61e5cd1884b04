package s3

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
)

// Notification is where events of a bucket go. It is read by who sends them.
type Notification struct {
	ID     string
	Kind   string   // "lambda", "queue" or "topic"
	Target string   // its ARN
	Events []string // "s3:ObjectCreated:*"
	Prefix string
	Suffix string
}

// Notifications are those of a bucket; EventBridge says whether all events go to the default event bus, too.
type Notifications struct {
	List        []Notification
	EventBridge bool
}

func (n Notifications) empty() bool { return len(n.List) == 0 && !n.EventBridge }

// NotificationsOf reads those of a bucket.
func NotificationsOf(b store.Bucket) Notifications {
	n, err := readNotification(b.Documents["notification"])
	if err != nil {
		return Notifications{} // it was read when it was put
	}
	return n
}

type notifier struct {
	ID            string `xml:"Id"`
	Topic         string
	Queue         string
	CloudFunction string
	Event         []string
	Rules         []struct{ Name, Value string } `xml:"Filter>S3Key>FilterRule"`
}

func readNotification(data []byte) (Notifications, error) {
	var out Notifications
	if data == nil {
		return out, nil
	}
	var in struct {
		Topics      []notifier `xml:"TopicConfiguration"`
		Queues      []notifier `xml:"QueueConfiguration"`
		Functions   []notifier `xml:"CloudFunctionConfiguration"`
		EventBridge *struct{}  `xml:"EventBridgeConfiguration"`
	}
	if err := xml.Unmarshal(data, &in); err != nil {
		return out, malformedXML()
	}
	out.EventBridge = in.EventBridge != nil
	for kind, list := range map[string][]notifier{"topic": in.Topics, "queue": in.Queues, "lambda": in.Functions} {
		for i, n := range list {
			one := Notification{ID: n.ID, Kind: kind, Target: n.Topic + n.Queue + n.CloudFunction, Events: n.Event}
			if one.ID == "" {
				one.ID = fmt.Sprintf("%s-%d", kind, i+1)
			}
			for _, r := range n.Rules {
				switch strings.ToLower(r.Name) {
				case "prefix":
					one.Prefix = r.Value
				case "suffix":
					one.Suffix = r.Value
				default:
					return out, invalidArgument("FilterRule", r.Name, "filter rule name must be either prefix or suffix")
				}
			}
			out.List = append(out.List, one)
		}
	}
	slices.SortFunc(out.List, func(a, b Notification) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// eventNames are those that a notification may ask for: S3 guide, "Supported event types for SQS, SNS, and Lambda".
var eventNames = []string{
	"s3:ObjectCreated:*", "s3:ObjectCreated:Put", "s3:ObjectCreated:Post", "s3:ObjectCreated:Copy", "s3:ObjectCreated:CompleteMultipartUpload",
	"s3:ObjectRemoved:*", "s3:ObjectRemoved:Delete", "s3:ObjectRemoved:DeleteMarkerCreated", "s3:ObjectRestore:*", "s3:ObjectRestore:Post", "s3:ObjectRestore:Completed", "s3:ObjectRestore:Delete",
	"s3:ReducedRedundancyLostObject", "s3:Replication:*", "s3:Replication:OperationFailedReplication", "s3:Replication:OperationMissedThreshold",
	"s3:Replication:OperationReplicatedAfterThreshold", "s3:Replication:OperationNotTracked", "s3:LifecycleExpiration:*", "s3:LifecycleExpiration:Delete",
	"s3:LifecycleExpiration:DeleteMarkerCreated", "s3:LifecycleTransition", "s3:IntelligentTiering", "s3:ObjectTagging:*", "s3:ObjectTagging:Put", "s3:ObjectTagging:Delete", "s3:ObjectAcl:Put",
}

func checkNotification(data []byte) error {
	n, err := readNotification(data)
	if err != nil {
		return err
	}
	for _, one := range n.List {
		if !strings.HasPrefix(one.Target, "arn:") {
			return invalidArgument(one.Kind, one.Target, "The ARN is not well formed")
		}
		if len(one.Events) == 0 {
			return malformedXML()
		}
		for _, e := range one.Events {
			if !slices.Contains(eventNames, e) {
				return invalidArgument("Event", e, "The event is not supported for notifications")
			}
		}
	}
	return nil
}

// Wants says whether a change is one that the notification is for.
func (n Notification) Wants(c store.ObjectChange) bool {
	return strings.HasPrefix(c.Key, n.Prefix) && strings.HasSuffix(c.Key, n.Suffix) && slices.ContainsFunc(n.Events, func(e string) bool { return fits(e, "s3:"+c.Event.Name) })
}

// Record is a change as S3's notifications have it: S3 guide, "Event message structure". id is that of the notification.
func Record(c store.ObjectChange, id, region, account string) json.RawMessage {
	object := map[string]any{"key": EncodeKey(c.Key), "sequencer": fmt.Sprintf("%016X", c.Seq)}
	if !strings.HasPrefix(c.Event.Name, "ObjectRemoved:") {
		object["size"] = c.Size
	}
	if c.ETag != "" {
		object["eTag"] = c.ETag
	}
	if c.Version != store.NullVersion && c.Version != "" {
		object["versionId"] = c.Version
	}
	data, err := json.Marshal(map[string]any{
		"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": region, "eventTime": c.Time.UTC().Format("2006-01-02T15:04:05.000Z"), "eventName": c.Event.Name,
		"userIdentity":      map[string]any{"principalId": c.Event.Principal},
		"requestParameters": map[string]any{"sourceIPAddress": c.Event.SourceIP},
		"responseElements":  map[string]any{"x-amz-request-id": c.Event.Request, "x-amz-id-2": c.Event.Request},
		"s3": map[string]any{
			"s3SchemaVersion": "1.0", "configurationId": id,
			"bucket": map[string]any{"name": c.Bucket.Name, "ownerIdentity": map[string]any{"principalId": account}, "arn": "arn:aws:s3:::" + c.Bucket.Name},
			"object": object,
		},
	})
	if err != nil {
		return nil // it holds nothing but text and numbers
	}
	return data
}

// EncodeKey encodes a key as notifications do: blanks as plus signs, slashes as they are.
func EncodeKey(key string) string {
	return strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")
}

// Detail is a change as S3 tells the event bus: S3 guide, "EventBridge event message structure"; kind is the event's detail-type.
func Detail(c store.ObjectChange, account string) (kind string, detail json.RawMessage) {
	object := map[string]any{"key": c.Key, "sequencer": fmt.Sprintf("%016X", c.Seq)}
	if c.ETag != "" {
		object["etag"] = c.ETag
	}
	if c.Version != store.NullVersion && c.Version != "" {
		object["version-id"] = c.Version
	}
	m := map[string]any{"version": "0", "bucket": map[string]any{"name": c.Bucket.Name}, "object": object, "request-id": c.Event.Request, "requester": account, "source-ip-address": c.Event.SourceIP}
	family, what, _ := strings.Cut(c.Event.Name, ":")
	switch family {
	case "ObjectCreated":
		kind = "Object Created"
		object["size"] = c.Size
		m["reason"] = map[string]string{"Put": "PutObject", "Copy": "CopyObject", "Post": "POST Object", "CompleteMultipartUpload": "CompleteMultipartUpload"}[what]
	case "ObjectRemoved", "LifecycleExpiration":
		kind = "Object Deleted"
		m["reason"] = "DeleteObject"
		if family == "LifecycleExpiration" {
			m["reason"] = "Lifecycle Expiration"
		}
		m["deletion-type"] = "Permanently Deleted"
		if what == "DeleteMarkerCreated" {
			m["deletion-type"] = "Delete Marker Created"
		}
	case "ObjectTagging":
		kind = "Object Tags Added"
		if what == "Delete" {
			kind = "Object Tags Deleted"
		}
	default:
		kind = "Object ACL Updated"
	}
	data, err := json.Marshal(m)
	if err != nil {
		return kind, nil
	}
	return kind, data
}
