package store

import (
	"context"
	"io"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// The limits of what [Objects] keep.
const (
	MaxKey      = 1024     // bytes of a key in UTF-8
	MaxParts    = 10_000   // of one upload
	MinPart     = 5 << 20  // bytes of each part but the last
	MaxPart     = 5 << 30  // bytes of one part and of one Put
	MaxObject   = 50 << 40 // bytes of an object
	NullVersion = "null"   // the version of what is put while a bucket keeps no versions
)

// What [Objects] answer when they do not do what they are asked. All are told apart by errors.Is.
var (
	ErrNoBucket       = errs.New(errs.NotFound, "no such bucket")
	ErrBucketExists   = errs.New(errs.Exists, "the bucket exists")
	ErrBucketNotEmpty = errs.New(errs.Conflict, "the bucket is not empty")
	ErrNoObject       = errs.New(errs.NotFound, "no such key")
	ErrNoVersion      = errs.New(errs.NotFound, "no such version")
	ErrNoUpload       = errs.New(errs.NotFound, "no such upload")
	ErrPrecondition   = errs.New(errs.Conflict, "a condition does not hold")
	ErrPartMissing    = errs.New(errs.Invalid, "a part is missing or is another one than was named")
	ErrPartOrder      = errs.New(errs.Invalid, "the parts are not in order")
	ErrPartTooSmall   = errs.New(errs.Invalid, "a part but the last is smaller than 5 MiB")
	ErrObjectTooLarge = errs.New(errs.TooLarge, "the object is larger than may be")
	ErrLocked         = errs.New(errs.Forbidden, "the version is locked against deletion")
	ErrDamaged        = errs.New(errs.Internal, "stored data is damaged")
	ErrDiskFull       = errs.New(errs.Unavailable, "the disk is full").WithHint("Free space on the disk of the data directory: what is stored already can be read and deleted.")
)

// BucketID names a bucket: names are one Tenant's own.
type BucketID struct{ Tenant, Name string }

// Versioning says whether a bucket keeps the versions of its objects.
type Versioning string

// The states. A bucket that has once kept versions cannot go back to Unversioned.
const (
	Unversioned Versioning = ""
	Versioned   Versioning = "enabled"
	Suspended   Versioning = "suspended"
)

// Bucket is what is kept of a bucket beside its objects.
type Bucket struct {
	Name       string            `json:"-"`
	Created    time.Time         `json:"-"`
	Versioning Versioning        `json:"-"`
	Notify     bool              `json:"-"` // its objects' changes are kept for [Objects.Changes]
	Tags       map[string]string `json:"tags,omitempty"`
	// Documents are kept for the wire that wrote them, by its name for them: "cors", "lifecycle", "policy".
	Documents map[string][]byte `json:"docs,omitempty"`
}

// ObjectKey names an object.
type ObjectKey struct {
	Bucket BucketID
	Key    string
}

// Algorithm is a checksum that an object may carry.
type Algorithm string

// The algorithms. Their text is in stored formats.
const (
	CRC32     Algorithm = "CRC32"
	CRC32C    Algorithm = "CRC32C"
	CRC64NVME Algorithm = "CRC64NVME"
	SHA1      Algorithm = "SHA1"
	SHA256    Algorithm = "SHA256"
	SHA512    Algorithm = "SHA512"
	MD5       Algorithm = "MD5"
	XXHash64  Algorithm = "XXHASH64"
	XXHash3   Algorithm = "XXHASH3"
	XXHash128 Algorithm = "XXHASH128"
)

// Whole says whether the checksum of an object can be had from those of its parts.
func (a Algorithm) Whole() bool { return a == CRC32 || a == CRC32C || a == CRC64NVME }

// Checksum is one kept with an object.
type Checksum struct {
	Algorithm Algorithm `json:"a,omitempty"`
	// Value is in Base64. That of a composite one is over the parts' values, and ends in "-" and their number.
	Value     string `json:"v,omitempty"`
	Composite bool   `json:"c,omitempty"`
}

// ObjectInfo is what is known of one version of an object. It is immutable.
type ObjectInfo struct {
	Key      string
	Version  string // NullVersion or one of the store's own making
	Latest   bool
	Marker   bool // it says that the object was deleted, and has no data
	Size     int64
	ETag     string // hex of the MD5; with "-N" that of an object of N parts; without quotes
	Modified time.Time
	ObjectMeta
	Checksum Checksum
	Parts    []PartInfo // of an object that was uploaded in parts
}

// ObjectMeta is what whoever puts an object says of it.
type ObjectMeta struct {
	Headers map[string]string `json:"h,omitempty"` // "content-type" and what else is answered as it was sent; names in lower case
	User    map[string]string `json:"u,omitempty"` // the user's own metadata; names in lower case
	Tags    map[string]string `json:"t,omitempty"`
	// Hold and Until lock the version against deletion: until it is lifted, until then.
	Hold  bool      `json:"l,omitempty"`
	Until time.Time `json:"r,omitzero"`
	Mode  string    `json:"m,omitempty"` // of Until: "GOVERNANCE" may be bypassed by those who ask
}

// PartInfo is one part of an upload, or of the object that was made of it.
type PartInfo struct {
	Number   int       `json:"n"`
	Size     int64     `json:"s"`
	ETag     string    `json:"e,omitempty"`
	Checksum string    `json:"c,omitempty"`
	Modified time.Time `json:"d,omitzero"`
}

// ObjectCondition is what must hold of the object that stands when it is replaced or deleted.
type ObjectCondition struct {
	IfMatch     string // the ETag that it must have; "*" for any
	IfNoneMatch string // the ETag that it must not have; "*": it must not exist
}

// ObjectSums are what was counted while data was taken in.
type ObjectSums struct {
	Size     int64
	MD5      [16]byte
	Checksum string // of the algorithm asked for, in Base64
}

// ObjectSource is part of the data of an object that stands. A Length below zero goes to its end.
type ObjectSource struct {
	ObjectKey
	Version        string // "" for the latest
	Offset, Length int64
	// Check sees what is copied; an error ends the copy.
	Check func(ObjectInfo) error
}

// PutObject is one object to be stored. Exactly one of Body and From gives its data.
type PutObject struct {
	Body io.Reader
	From *ObjectSource
	ObjectMeta
	Algorithm Algorithm // "" for no checksum
	// Verify is called with the sums before anything is visible; its error ends the Put and nothing has happened.
	Verify    func(ObjectSums) error
	Condition ObjectCondition
	Event     ObjectEvent
}

// PutPart is one part to be stored, as [PutObject].
type PutPart struct {
	Body      io.Reader
	From      *ObjectSource
	Algorithm Algorithm // of the checksum in Verify; "" for that of the upload. What is kept of the part is that of the upload
	Verify    func(ObjectSums) error
}

// ObjectEvent says who did something and how, and goes into the [ObjectChange]. Name "" is for none.
type ObjectEvent struct {
	Name      string `json:"n,omitempty"` // the wire's name for what happened, "ObjectCreated:Put"
	Principal string `json:"p,omitempty"`
	Request   string `json:"r,omitempty"` // the request's id
	SourceIP  string `json:"i,omitempty"`
}

// ObjectChange is something that happened in a bucket with Notify.
type ObjectChange struct {
	Seq     uint64 // rises
	Bucket  BucketID
	Event   ObjectEvent
	Key     string
	Version string // NullVersion where no versions are kept
	Size    int64
	ETag    string
	Time    time.Time
}

// DeleteObject says what to delete.
type DeleteObject struct {
	Version   string // "" deletes as the bucket's versioning has it; else this version for good
	Condition ObjectCondition
	Bypass    bool // of a lock that may be
	Event     ObjectEvent
	// MarkerEvent is told instead of Event when a marker is put.
	MarkerEvent string
}

// Deleted says what a deletion did. It is no error to delete what does not exist.
type Deleted struct {
	Version string // of the marker made, or the version removed; "" where no versions are kept
	Marker  bool   // a marker was made, or one was removed
	Found   bool
}

// ListObjects says what to list, in the order of the keys' bytes.
type ListObjects struct {
	Prefix, Delimiter string
	// After is the key or common prefix after which to begin; AfterVersion with it, a version of that key: what is older comes first.
	After, AfterVersion string
	Versions            bool // all versions, newest first, markers too; else the latest, without markers
	Limit               int
}

// ObjectList is a page of a listing.
type ObjectList struct {
	Objects  []ObjectInfo
	Prefixes []string // what was rolled up to, each once
	More     bool
	// NextKey and NextVersion are the After and AfterVersion of the page that follows.
	NextKey, NextVersion string
}

// CreateUpload says what an object made of parts will be.
type CreateUpload struct {
	ObjectMeta
	Algorithm Algorithm
	Composite bool // the checksum is one over those of the parts
	Implied   bool // nobody has asked for the Algorithm: parts may come with checksums of others
}

// Upload is one that was begun and not ended.
type Upload struct {
	Key, ID   string
	Created   time.Time
	Algorithm Algorithm
	Composite bool
	Implied   bool
	ObjectMeta
}

// ListUploads is as [ListObjects].
type ListUploads struct {
	Prefix, Delimiter, After, AfterID string
	Limit                             int
}

// UploadList is a page of a listing of uploads.
type UploadList struct {
	Uploads         []Upload
	Prefixes        []string
	More            bool
	NextKey, NextID string
}

// CompleteUpload says of which parts an object is made.
type CompleteUpload struct {
	Parts     []PartInfo // Number and, where not empty, ETag and Checksum must be those of the part
	Condition ObjectCondition
	// Verify is called with what the object will be, before it is visible.
	Verify func(ObjectInfo) error
	Event  ObjectEvent
}

// Object is one version that is open for reading.
type Object interface {
	Info() ObjectInfo
	// Read writes a range of the data to w, every block verified before it is given. Damage ends in [ErrDamaged]. What the
	// Object was when it was opened is read even when it is replaced or deleted meanwhile.
	Read(ctx context.Context, w io.Writer, offset, length int64) error
	Close() error
}

// Objects keep objects in buckets.
//
// What a method has returned without error is durable. A method that returns an error has changed nothing, but for one that ends with
// [errs.Unavailable] or a context's end, of which the caller does not know. An object is replaced as a whole or not at all, and no part of one
// that is being put can be seen. Methods may be called concurrently; writers of one key come one after the other.
// Memory does not grow with the size of what is put or read.
type Objects interface {
	CreateBucket(ctx context.Context, id BucketID, b Bucket) error
	Bucket(ctx context.Context, id BucketID) (Bucket, error)
	// SetBucket changes a bucket by a function of what it is; the function's error ends it, and nothing has changed.
	SetBucket(ctx context.Context, id BucketID, change func(*Bucket) error) error
	// DeleteBucket deletes one that has no version and no marker. Its uploads are aborted.
	DeleteBucket(ctx context.Context, id BucketID) error
	// Buckets lists those of a Tenant, in the order of their names.
	Buckets(ctx context.Context, tenant string) ([]Bucket, error)

	Put(ctx context.Context, key ObjectKey, p PutObject) (ObjectInfo, error)
	// Open opens a version for reading, "" for the latest. A marker that is the latest is [ErrNoObject], with its ObjectInfo in the Object; the
	// caller closes an Object whenever it is not nil.
	Open(ctx context.Context, key ObjectKey, version string) (Object, error)
	// Head is Open without the data. A marker is given as it is, without error.
	Head(ctx context.Context, key ObjectKey, version string) (ObjectInfo, error)
	// Update changes what is said of a version in place; data, ETag and time stay.
	Update(ctx context.Context, key ObjectKey, version string, event ObjectEvent, change func(*ObjectMeta) error) (ObjectInfo, error)
	Delete(ctx context.Context, key ObjectKey, d DeleteObject) (Deleted, error)
	List(ctx context.Context, bucket BucketID, l ListObjects) (ObjectList, error)

	CreateUpload(ctx context.Context, key ObjectKey, u CreateUpload) (Upload, error)
	Upload(ctx context.Context, key ObjectKey, id string) (Upload, error)
	PutPart(ctx context.Context, key ObjectKey, id string, number int, p PutPart) (PartInfo, error)
	Parts(ctx context.Context, key ObjectKey, id string, after, limit int) (parts []PartInfo, more bool, err error)
	CompleteUpload(ctx context.Context, key ObjectKey, id string, c CompleteUpload) (ObjectInfo, error)
	AbortUpload(ctx context.Context, key ObjectKey, id string) error
	Uploads(ctx context.Context, bucket BucketID, l ListUploads) (UploadList, error)

	// Changes returns the oldest that are kept, and waits for one when there is none. They are kept until they are forgotten.
	Changes(ctx context.Context, limit int) ([]ObjectChange, error)
	ForgetChanges(ctx context.Context, upto uint64) error
}
