package store

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Attr is a key attribute: its name and its kind, S, N or B. The zero Attr is none.
type Attr struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
}

// Key says what an Item of a table or index is found by.
type Key struct {
	Hash  Attr `json:"hash"`
	Range Attr `json:"range,omitzero"`
}

// Names returns the names of the key's attributes.
func (k Key) Names() []string {
	if k.Range.Name == "" {
		return []string{k.Hash.Name}
	}
	return []string{k.Hash.Name, k.Range.Name}
}

// In tells whether an Item has the key's attributes with their kinds.
func (k Key) In(it Item) bool {
	return it[k.Hash.Name].Kind == k.Hash.Kind && (k.Range.Name == "" || it[k.Range.Name].Kind == k.Range.Kind)
}

// Index is another order of a table's Items. An Item without its key attributes is not in it.
type Index struct {
	Name   string    `json:"name"`
	Key    Key       `json:"key"`
	Local  bool      `json:"local,omitempty"`  // has the table's hash key (AWS "local secondary index")
	All    bool      `json:"all,omitempty"`    // shows whole Items
	Attrs  []string  `json:"attrs,omitempty"`  // what it shows besides the keys of table and index
	Reads  int64     `json:"reads,omitempty"`  // provisioned units, kept for who asks
	Writes int64     `json:"writes,omitempty"` // provisioned units
	Made   time.Time `json:"made,omitzero"`
}

// View says which images of an Item a [Record] is to show; empty means that the table has no stream.
type View string

// The views, as DynamoDB names them.
const (
	KeysOnly  View = "KEYS_ONLY"
	NewImage  View = "NEW_IMAGE"
	OldImage  View = "OLD_IMAGE"
	BothViews View = "NEW_AND_OLD_IMAGES"
)

// Table is the description of a table. ID, Made, Items and Bytes are the store's to give.
type Table struct {
	Name      string            `json:"name"`
	ID        string            `json:"id"` // another one after the table was deleted and made again
	Made      time.Time         `json:"made"`
	Key       Key               `json:"key"`
	Indexes   []Index           `json:"indexes,omitempty"`
	TTL       string            `json:"ttl,omitempty"`      // attribute of kind N that holds the second an Item expires
	View      View              `json:"view,omitempty"`     // what its stream shows
	Label     string            `json:"label,omitempty"`    // of the stream: when it was turned on
	OnDemand  bool              `json:"onDemand,omitempty"` // no provisioned units
	Reads     int64             `json:"reads,omitempty"`    // provisioned units
	Writes    int64             `json:"writes,omitempty"`   // provisioned units
	Protected bool              `json:"protected,omitempty"`
	Class     string            `json:"class,omitempty"`
	Tags      map[string]string `json:"tags,omitempty"`
	Owner     string            `json:"owner,omitempty"` // the Stack that declared it
	Extra     map[string]string `json:"extra,omitempty"` // what a wire API keeps for itself

	Items int64 `json:"-"` // how many
	Bytes int64 `json:"-"` // their Size
}

// Index returns the index with the name, or nil.
func (t *Table) Index(name string) *Index {
	if i := slices.IndexFunc(t.Indexes, func(x Index) bool { return x.Name == name }); i >= 0 {
		return &t.Indexes[i]
	}
	return nil
}

// Lookup names one Item. Of Key only the key attributes count.
type Lookup struct {
	Table string
	Key   Item
}

// Change is one step of a Write.
type Change struct {
	Table string
	Key   Item
	// Apply gets the Item that is there, or nil, and returns the one that is to be there, or nil. An error aborts the Write. It runs in a
	// writer of the store: it must be quick, must not call the store, and may be called again. It does not change old, and what it returns
	// has the key's attributes. Returning old itself changes nothing.
	Apply func(old Item) (Item, error)
}

// Aborted is the error of a Write that a Change's function refused.
type Aborted struct {
	Errs []error // one place for each Change; nil where it had nothing to say
}

// Error returns the first refusal.
func (a *Aborted) Error() string {
	for i, err := range a.Errs {
		if err != nil {
			return fmt.Sprintf("change %d: %v", i, err)
		}
	}
	return "aborted"
}

// Unwrap returns the refusals.
func (a *Aborted) Unwrap() []error {
	return slices.DeleteFunc(slices.Clone(a.Errs), func(err error) bool { return err == nil })
}

// Bound is one end of a range of range keys. The zero Bound is open.
type Bound struct {
	Value Value
	Not   bool // the value itself is outside
}

// Query asks for the Items of one hash key in order.
type Query struct {
	Table      string
	Index      string // empty means the table's own order
	Hash       Value
	Low, High  Bound
	Prefix     Value // S or B: what the range key begins with
	Descending bool
	After      Item // the keys of table and index of the last Item seen, which is outside
}

// Scan asks for all Items in an order of the store's own, which stays the same as long as no Item comes or goes.
type Scan struct {
	Table    string
	Index    string
	Segment  int  // from 0
	Segments int  // 0 and 1 mean all
	After    Item // errs.Invalid when it is of another segment
}

// Op says what a change did to an Item.
type Op string

// The changes, as DynamoDB names them.
const (
	Insert Op = "INSERT"
	Modify Op = "MODIFY"
	Remove Op = "REMOVE"
)

// Record is one change of one Item in the stream of its table.
type Record struct {
	Seq      uint64 // rises with each change in the store
	At       time.Time
	Op       Op
	Key      Item
	Old, New Item // as the table's View says
	Expired  bool // removed because its time had come
}

// Tables keeps tables of Items. All methods may be called at the same time. Names are those of one tenant; an unknown table is
// errs.NotFound, one that is there already errs.Exists, a store that cannot write now (a full disk, closed, a database that is away)
// errs.Unavailable. Several Stores may have the same tables open where the implementation says so; the contract then holds over all of them.
type Tables interface {
	// Create makes a table.
	Create(ctx context.Context, tenant string, t Table) (Table, error)
	// Alter changes what fn changes of a table's description: indexes, TTL, stream, tags and the like, not its name or key. A new index
	// holds every Item when Alter returns. fn may be called again.
	Alter(ctx context.Context, tenant, name string, fn func(Table) (Table, error)) (Table, error)
	// Drop deletes a table with its Items, indexes and Records.
	Drop(ctx context.Context, tenant, name string) (Table, error)
	// Table describes one.
	Table(ctx context.Context, tenant, name string) (Table, error)
	// List describes all, by name.
	List(ctx context.Context, tenant string) ([]Table, error)

	// Get returns the Items found, nil where there is none, all as of one moment.
	Get(ctx context.Context, tenant string, keys []Lookup) ([]Item, error)
	// Write applies the Changes, all or none. No two may name the same Item (errs.Invalid). A Write that a function refused is an [*Aborted];
	// all functions are called then. When ctx ends first, the Write may still happen.
	Write(ctx context.Context, tenant string, changes []Change) error
	// Query calls each with Items in order until it returns false. What each gets is what the index shows.
	Query(ctx context.Context, tenant string, q Query, each func(Item) bool) error
	// Scan calls each with Items until it returns false.
	Scan(ctx context.Context, tenant string, s Scan, each func(Item) bool) error

	// Expire removes Items whose time had come at now, and Records older than 24 hours, a bounded number of each; more says that there are others.
	Expire(ctx context.Context, now time.Time) (more bool, err error)
	// Records returns up to limit Records of a table's stream behind a sequence number.
	Records(ctx context.Context, tenant, table string, after uint64, limit int) ([]Record, error)
	// Last returns the sequence number of a table's newest Record, 0 when there is none.
	Last(ctx context.Context, tenant, table string) (uint64, error)
	// Changed returns a channel that is closed at the next change of any table with a stream.
	Changed() <-chan struct{}
	// Lead calls f while nobody else who has the store open, in any process, is in a Lead of the same name, and returns what f returns.
	// Until then it waits. f's context ends when the lead may be lost: f is to return, and is called again at the next turn. When ctx
	// ends, Lead returns its error once f has returned.
	Lead(ctx context.Context, name string, f func(context.Context) error) error
}

// Successor returns the least text above all that begin with a prefix, or "" when there is none.
func Successor(prefix string) string {
	b := []byte(prefix)
	for len(b) > 0 && b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return ""
	}
	b[len(b)-1]++
	return string(b)
}
