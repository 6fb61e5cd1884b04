package dynamodb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

// DynamoDB quotas: "Secondary indexes per table".
const (
	maxLocal  = 5
	maxGlobal = 20
	maxUnits  = 1_000_000_000_000
)

// schemaOf reads a key schema by the attribute definitions; the message says what is wrong.
func schemaOf(n *node, defs map[string]store.Kind, order []string) (k store.Key, msg string) {
	var keys []string
	for i := range n.elems {
		keys = append(keys, n.elems[i].str("AttributeName"))
	}
	for _, name := range keys {
		if defs[name] == store.None {
			return k, invalidPrefix + "Some index key attributes are not defined in AttributeDefinitions. Keys: [" + strings.Join(keys, ", ") + "], AttributeDefinitions: [" + strings.Join(order, ", ") + "]"
		}
	}
	if len(keys) == 2 && keys[0] == keys[1] {
		return k, "Both the Hash Key and the Range Key element in the KeySchema have the same name"
	}
	if n.elems[0].str("KeyType") != "HASH" {
		return k, "Invalid KeySchema: The first KeySchemaElement is not a HASH key type"
	}
	k.Hash = store.Attr{Name: keys[0], Kind: defs[keys[0]]}
	if len(keys) == 2 {
		if n.elems[1].str("KeyType") != "RANGE" {
			return k, "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"
		}
		k.Range = store.Attr{Name: keys[1], Kind: defs[keys[1]]}
	}
	return k, ""
}

func definitionsOf(n *node) (defs map[string]store.Kind, order []string) {
	defs = map[string]store.Kind{}
	if n == nil {
		return defs, nil
	}
	for i := range n.elems {
		name := n.elems[i].str("AttributeName")
		defs[name] = store.KindOf(n.elems[i].str("AttributeType"))
		order = append(order, name)
	}
	return defs, order
}

// unitsOf reads a provisioned throughput; the message says which is too large.
func unitsOf(n *node) (reads, writes int64, msg string) {
	reads, _ = n.num("ReadCapacityUnits")
	writes, _ = n.num("WriteCapacityUnits")
	if reads > maxUnits {
		return 0, 0, "Given value " + strconv.FormatInt(reads, 10) + " for ReadCapacityUnits is out of bounds"
	}
	if writes > maxUnits {
		return 0, 0, "Given value " + strconv.FormatInt(writes, 10) + " for WriteCapacityUnits is out of bounds"
	}
	return reads, writes, ""
}

const bothUnits = invalidPrefix + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"

// tableOf reads the request of CreateTable; the message says what is wrong.
func tableOf(n *node) (t store.Table, msg string) {
	t = store.Table{Name: n.str("TableName"), OnDemand: n.str("BillingMode") == "PAY_PER_REQUEST", Protected: n.flag("DeletionProtectionEnabled")}
	if class := n.str("TableClass"); class != "STANDARD" {
		t.Class = class
	}
	through := n.get("ProvisionedThroughput")
	switch {
	case t.OnDemand && through != nil:
		return t, bothUnits
	case !t.OnDemand && through == nil:
		return t, invalidPrefix + "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
	case through != nil:
		if t.Reads, t.Writes, msg = unitsOf(through); msg != "" {
			return t, msg
		}
	}
	defs, order := definitionsOf(n.get("AttributeDefinitions"))
	schema := n.get("KeySchema")
	if len(schema.elems) > len(order) {
		return t, "Invalid KeySchema: Some index key attribute have no definition"
	}
	if t.Key, msg = schemaOf(schema, defs, order); msg != "" {
		return t, msg
	}
	local, global := n.get("LocalSecondaryIndexes"), n.get("GlobalSecondaryIndexes")
	if local == nil && global == nil && len(schema.elems) != len(order) {
		return t, invalidPrefix + "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions"
	}
	if msg = addLocal(&t, local, defs, order); msg != "" {
		return t, msg
	}
	if msg = addGlobal(&t, global, defs, order); msg != "" {
		return t, msg
	}
	if msg = unusedDefinitions(&t, order); msg != "" {
		return t, msg
	}
	if spec := n.get("StreamSpecification"); spec != nil {
		if t.View, msg = viewOf(spec); msg != "" {
			return t, msg
		}
	}
	if tags := n.get("Tags"); tags != nil {
		t.Tags = map[string]string{}
		for i := range tags.elems {
			t.Tags[tags.elems[i].str("Key")] = tags.elems[i].str("Value")
		}
	}
	return t, ""
}

// unusedDefinitions refuses attributes that no key has.
func unusedDefinitions(t *store.Table, order []string) string {
	for _, name := range order {
		if !slices.ContainsFunc(allKeys(t), func(k store.Key) bool { return slices.Contains(k.Names(), name) }) {
			return invalidPrefix + "Some AttributeDefinitions are not used. AttributeDefinitions: [" + strings.Join(order, ", ") + "], keys used: [" + strings.Join(usedKeys(t), ", ") + "]"
		}
	}
	return ""
}

func usedKeys(t *store.Table) (all []string) {
	for _, k := range allKeys(t) {
		for _, name := range k.Names() {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

func viewOf(spec *node) (store.View, string) {
	switch {
	case spec.flag("StreamEnabled") && spec.str("StreamViewType") == "":
		return "", invalidPrefix + "StreamViewType is required when StreamEnabled is true"
	case !spec.flag("StreamEnabled") && spec.str("StreamViewType") != "":
		return "", invalidPrefix + "StreamViewType must not be specified when StreamEnabled is false"
	}
	return store.View(spec.str("StreamViewType")), ""
}

// projectionOf reads what an index shows.
func projectionOf(x *store.Index, n *node) string {
	kind := n.str("ProjectionType")
	if kind == "" {
		return invalidPrefix + "Unknown ProjectionType: null"
	}
	others := n.get("NonKeyAttributes")
	if others != nil && kind != "INCLUDE" {
		return invalidPrefix + "ProjectionType is " + kind + ", but NonKeyAttributes is specified"
	}
	x.All = kind == "ALL"
	if kind == "INCLUDE" {
		x.Attrs = []string{}
		if others != nil {
			for i := range others.elems {
				x.Attrs = append(x.Attrs, others.elems[i].text)
			}
		}
	}
	return ""
}

func addLocal(t *store.Table, n *node, defs map[string]store.Kind, order []string) (msg string) {
	if n == nil {
		return ""
	}
	if len(n.elems) == 0 {
		return invalidPrefix + "List of LocalSecondaryIndexes is empty"
	}
	if t.Key.Range.Name == "" {
		return invalidPrefix + "Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex"
	}
	for i := range n.elems {
		one := &n.elems[i]
		x := store.Index{Name: one.str("IndexName"), Local: true}
		if x.Key, msg = schemaOf(one.get("KeySchema"), defs, order); msg != "" {
			return msg
		}
		if x.Key.Range.Name == "" {
			return invalidPrefix + "Index KeySchema does not have a range key for index: " + x.Name
		}
		if x.Key.Hash != t.Key.Hash {
			return invalidPrefix + "Index KeySchema does not have the same leading hash key as table KeySchema for index: " + x.Name + ". index hash key: " + x.Key.Hash.Name + ", table hash key: " + t.Key.Hash.Name
		}
		if msg = addIndex(t, x, one); msg != "" {
			return msg
		}
	}
	if len(n.elems) > maxLocal {
		return invalidPrefix + fmt.Sprintf("Number of LocalSecondaryIndexes exceeds per-table limit of %d", maxLocal)
	}
	return ""
}

func addIndex(t *store.Table, x store.Index, n *node) string {
	if msg := projectionOf(&x, n.get("Projection")); msg != "" {
		return msg
	}
	through := n.get("ProvisionedThroughput")
	if through != nil && t.OnDemand {
		return invalidPrefix + "ProvisionedThroughput should not be specified for index: " + x.Name + " when BillingMode is PAY_PER_REQUEST"
	}
	if t.Index(x.Name) != nil {
		return invalidPrefix + "Duplicate index name: " + x.Name
	}
	if through != nil {
		x.Reads, x.Writes, _ = unitsOf(through)
	}
	t.Indexes = append(t.Indexes, x)
	return ""
}

func addGlobal(t *store.Table, n *node, defs map[string]store.Kind, order []string) (msg string) {
	if n == nil {
		return ""
	}
	if len(n.elems) == 0 {
		return invalidPrefix + "List of GlobalSecondaryIndexes is empty"
	}
	for i := range n.elems {
		x := store.Index{Name: n.elems[i].str("IndexName")}
		if x.Key, msg = schemaOf(n.elems[i].get("KeySchema"), defs, order); msg != "" {
			return msg
		}
		if msg = addIndex(t, x, &n.elems[i]); msg != "" {
			return msg
		}
	}
	if len(n.elems) > maxGlobal {
		return invalidPrefix + fmt.Sprintf("GlobalSecondaryIndex count exceeds the per-table limit of %d", maxGlobal)
	}
	return ""
}

// checkUpdateTable tells what is wrong with a request of UpdateTable whatever the table.
func checkUpdateTable(n *node) string {
	updates := n.get("GlobalSecondaryIndexUpdates")
	through := n.get("ProvisionedThroughput")
	if through == nil && n.get("BillingMode") == nil && (updates == nil || len(updates.elems) == 0) && n.get("SSESpecification") == nil &&
		n.get("StreamSpecification") == nil && n.get("DeletionProtectionEnabled") == nil && n.get("TableClass") == nil {
		return "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"
	}
	if n.str("BillingMode") == "PROVISIONED" && through == nil {
		return invalidPrefix + "ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
	}
	if through != nil {
		if _, _, msg := unitsOf(through); msg != "" {
			return msg
		}
	}
	if updates == nil {
		return ""
	}
	seen := map[string]bool{}
	for i := range updates.elems {
		name := ""
		for _, kind := range []string{"Delete", "Create", "Update"} {
			if one := updates.elems[i].get(kind); one != nil {
				name = one.str("IndexName")
			}
		}
		if len(updates.elems[i].members) == 0 {
			return invalidPrefix + "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null"
		}
		if seen[name] {
			return invalidPrefix + "Only one global secondary index update per index is allowed simultaneously. Index: " + name
		}
		seen[name] = true
	}
	return ""
}

// altered applies a request of UpdateTable to a table's description.
func altered(c *call, t store.Table, now time.Time) (store.Table, error) {
	n := c.n
	wasOnDemand := t.OnDemand
	if mode := n.str("BillingMode"); mode != "" {
		t.OnDemand = mode == "PAY_PER_REQUEST"
	}
	t.Indexes = slices.Clone(t.Indexes)
	if err := alterUnits(n, &t, wasOnDemand); err != nil {
		return t, err
	}
	if wasOnDemand != t.OnDemand {
		t.Extra = map[string]string{"billing": now.Format(time.RFC3339Nano)}
		if t.OnDemand {
			t.Reads, t.Writes = 0, 0
			for i := range t.Indexes {
				t.Indexes[i].Reads, t.Indexes[i].Writes = 0, 0
			}
		}
	}
	if err := alterIndexes(n, &t); err != nil {
		return t, err
	}
	if spec := n.get("StreamSpecification"); spec != nil {
		view, msg := viewOf(spec)
		switch {
		case msg != "":
			return t, fail(msg)
		case spec.flag("StreamEnabled") && t.View != "":
			return t, wire.Errorf("ResourceInUseException", "Table already has an enabled stream: TableName: %s", t.Name)
		case !spec.flag("StreamEnabled") && t.View == "":
			return t, fail("Table is already without a stream: TableName: " + t.Name)
		}
		if t.View = view; view != "" {
			t.Label = labelAt(now)
		}
	}
	if on := n.get("DeletionProtectionEnabled"); on != nil {
		t.Protected = on.truth
	}
	if class := n.str("TableClass"); class != "" {
		t.Class = class
	}
	return t, nil
}

func alterUnits(n *node, t *store.Table, wasOnDemand bool) error {
	through := n.get("ProvisionedThroughput")
	if through != nil && t.OnDemand {
		return fail(bothUnits)
	}
	updates := n.get("GlobalSecondaryIndexUpdates")
	if updates != nil && len(updates.elems) > maxLocal {
		return wire.Errorf("LimitExceededException", "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
	}
	left := map[string]bool{}
	for _, x := range t.Indexes {
		left[x.Name] = !x.Local
	}
	if through != nil {
		reads, writes, _ := unitsOf(through)
		if err := changes(t.Reads, t.Writes, reads, writes); err != nil {
			return err
		}
		t.Reads, t.Writes = reads, writes
	}
	if updates != nil {
		for i := range updates.elems {
			u := updates.elems[i].get("Update")
			if u == nil {
				continue
			}
			reads, writes, msg := unitsOf(u.get("ProvisionedThroughput"))
			if msg != "" {
				return fail("This operation cannot be performed with given input values. Please contact DynamoDB service team for more info: Action Blocked: IndexUpdate")
			}
			x := t.Index(u.str("IndexName"))
			if x == nil {
				continue
			}
			delete(left, x.Name)
			if err := changes(x.Reads, x.Writes, reads, writes); err != nil {
				return err
			}
			x.Reads, x.Writes = reads, writes
		}
	}
	if wasOnDemand && !t.OnDemand {
		var missing []string
		for _, x := range t.Indexes {
			if left[x.Name] {
				missing = append(missing, x.Name)
			}
		}
		if len(missing) > 0 {
			return fail(invalidPrefix + "ProvisionedThroughput must be specified for index: " + strings.Join(missing, ","))
		}
	}
	return nil
}

func changes(reads, writes, wantReads, wantWrites int64) error {
	if reads != wantReads || writes != wantWrites {
		return nil
	}
	return fail(fmt.Sprintf("The provisioned throughput for the table will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for the table: %d. Requested ReadCapacityUnits: %d. "+
		"Current WriteCapacityUnits provisioned for the table: %d. Requested WriteCapacityUnits: %d. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.", reads, wantReads, writes, wantWrites))
}

func alterIndexes(n *node, t *store.Table) error {
	updates := n.get("GlobalSecondaryIndexUpdates")
	if updates == nil {
		return nil
	}
	defs, order := definitionsOf(n.get("AttributeDefinitions"))
	for _, k := range allKeys(t) {
		for _, a := range []store.Attr{k.Hash, k.Range} {
			if a.Name != "" && defs[a.Name] == store.None {
				defs[a.Name] = a.Kind
				order = append(order, a.Name)
			}
		}
	}
	for i := range updates.elems {
		if d := updates.elems[i].get("Delete"); d != nil {
			at := slices.IndexFunc(t.Indexes, func(x store.Index) bool { return x.Name == d.str("IndexName") && !x.Local })
			if at < 0 {
				return wire.Errorf("ResourceNotFoundException", "Requested resource not found")
			}
			t.Indexes = slices.Delete(t.Indexes, at, at+1)
		}
		if create := updates.elems[i].get("Create"); create != nil {
			if x := t.Index(create.str("IndexName")); x != nil {
				return fail("Attempting to create an index which already exists")
			}
			if msg := addGlobal(t, &node{kind: 'a', elems: []node{*create}}, defs, order); msg != "" {
				return fail(msg)
			}
		}
	}
	return nil
}
