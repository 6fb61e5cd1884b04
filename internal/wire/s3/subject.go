package s3

import (
	"encoding/xml"
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// actions are those of operations whose names differ, as AWS's "Actions, resources, and condition keys for Amazon S3" has them. One that begins with
// "/" is about the object.
var actions = map[string]string{
	"ListBuckets": "ListAllMyBuckets", "HeadBucket": "ListBucket", "ListObjects": "ListBucket", "ListObjectsV2": "ListBucket", "ListObjectVersions": "ListBucketVersions",
	"ListMultipartUploads": "ListBucketMultipartUploads", "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration", "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
	"DeleteBucketLifecycle": "PutLifecycleConfiguration", "GetBucketNotificationConfiguration": "GetBucketNotification", "PutBucketNotificationConfiguration": "PutBucketNotification",
	"GetBucketEncryption": "GetEncryptionConfiguration", "PutBucketEncryption": "PutEncryptionConfiguration", "DeleteBucketEncryption": "PutEncryptionConfiguration",
	"DeleteBucketCors": "PutBucketCORS", "DeleteBucketTagging": "PutBucketTagging", "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
	"GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock", "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",

	"GetObject": "/GetObject", "HeadObject": "/GetObject", "GetObjectAttributes": "/GetObjectAttributes", "PutObject": "/PutObject", "CopyObject": "/PutObject",
	"CreateMultipartUpload": "/PutObject", "UploadPart": "/PutObject", "UploadPartCopy": "/PutObject", "CompleteMultipartUpload": "/PutObject", opForm: "/PutObject",
	"AbortMultipartUpload": "/AbortMultipartUpload", "ListParts": "/ListMultipartUploadParts", "DeleteObject": "/DeleteObject", "DeleteObjects": "/DeleteObject",
	"GetObjectTagging": "/GetObjectTagging", "PutObjectTagging": "/PutObjectTagging", "DeleteObjectTagging": "/DeleteObjectTagging",
	"GetObjectAcl": "/GetObjectAcl", "PutObjectAcl": "/PutObjectAcl", "GetObjectLegalHold": "/GetObjectLegalHold", "PutObjectLegalHold": "/PutObjectLegalHold",
	"GetObjectRetention": "/GetObjectRetention", "PutObjectRetention": "/PutObjectRetention",
}

// ofVersions are the actions on objects that are others where a version is named.
var ofVersions = map[string]string{
	"GetObject": "GetObjectVersion", "DeleteObject": "DeleteObjectVersion", "GetObjectTagging": "GetObjectVersionTagging", "PutObjectTagging": "PutObjectVersionTagging",
	"DeleteObjectTagging": "DeleteObjectVersionTagging", "GetObjectAcl": "GetObjectVersionAcl", "PutObjectAcl": "PutObjectVersionAcl",
}

// subjects names the bucket or the objects.
func subjects(c *wire.Call, _ any) []wire.Subject {
	action, ok := actions[c.Operation]
	if !ok {
		action = c.Operation
	}
	bucket := c.Labels["Bucket"]
	action, ofObject := strings.CutPrefix(action, "/")
	switch {
	case c.Operation == opPreflight || c.Operation == opWebsite:
		return nil
	case bucket == "":
		return []wire.Subject{{Action: "s3:" + action, Resource: "*"}}
	case !ofObject:
		s := wire.Subject{Action: "s3:" + action, Resource: "arn:aws:s3:::" + bucket, Context: map[string][]string{}}
		for _, p := range []string{"prefix", "delimiter", "max-keys"} {
			if v, ok := c.Param(p); ok {
				s.Context["s3:"+p] = []string{v}
			}
		}
		return append([]wire.Subject{s}, notifiedBy(c)...)
	case c.Operation == "DeleteObjects":
		return deletions(c, bucket)
	}
	version, _ := c.Param("versionId")
	out := []wire.Subject{objectSubject(action, bucket, c.Labels["Key"], version)}
	if c.Operation == "CopyObject" || c.Operation == "UploadPartCopy" {
		from, key, query := copySource(header(c, "X-Amz-Copy-Source"))
		out = append(out, objectSubject("GetObject", from, key, strings.TrimPrefix(query, "versionId=")))
	}
	return out
}

func objectSubject(action, bucket, key, version string) wire.Subject {
	if v := ofVersions[action]; version != "" && v != "" {
		action = v
	}
	return wire.Subject{Action: "s3:" + action, Resource: "arn:aws:s3:::" + bucket + "/" + key}
}

// notifiedBy is what a bucket's notifications are to be sent to.
func notifiedBy(c *wire.Call) (out []wire.Subject) {
	if c.Operation != "PutBucketNotificationConfiguration" {
		return nil
	}
	n, err := readNotification(c.Body)
	if err != nil {
		return nil // the operation refuses it
	}
	action := map[string]string{"queue": "sqs:SendMessage", "topic": "sns:Publish", "lambda": "lambda:InvokeFunction"}
	for _, one := range n.List {
		out = append(out, wire.Subject{Action: action[one.Kind], Resource: one.Target, Reach: true})
	}
	return out
}

func deletions(c *wire.Call, bucket string) []wire.Subject {
	var doc struct {
		Object []struct{ Key, VersionId string } //nolint:revive // the element's name
	}
	if xml.Unmarshal(c.Body, &doc) != nil {
		return nil // the operation refuses it
	}
	var out []wire.Subject
	for _, o := range doc.Object {
		out = append(out, objectSubject("DeleteObject", bucket, o.Key, o.VersionId))
	}
	return out
}
