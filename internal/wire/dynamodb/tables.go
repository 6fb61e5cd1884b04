package dynamodb

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

type object = map[string]any

func keyElements(k store.Key) []object {
	out := []object{{"AttributeName": k.Hash.Name, "KeyType": "HASH"}}
	if k.Range.Name != "" {
		out = append(out, object{"AttributeName": k.Range.Name, "KeyType": "RANGE"})
	}
	return out
}

// definitionsOfTable are the AttributeDefinitions of a table.
func definitionsOfTable(t *store.Table) (defs []object) {
	attrs := map[string]store.Kind{}
	for _, k := range allKeys(t) {
		attrs[k.Hash.Name] = k.Hash.Kind
		if k.Range.Name != "" {
			attrs[k.Range.Name] = k.Range.Kind
		}
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		defs = append(defs, object{"AttributeName": name, "AttributeType": attrs[name].String()})
	}
	return defs
}

// describe is a TableDescription.
func (c *call) describe(t *store.Table, status string) object {
	d := object{
		"TableName": t.Name, "TableArn": c.arn(t.Name), "TableId": uuidOf(t.ID), "TableStatus": status, "CreationDateTime": seconds(t.Made),
		"ItemCount": t.Items, "TableSizeBytes": t.Bytes, "AttributeDefinitions": definitionsOfTable(t), "KeySchema": keyElements(t.Key),
		"ProvisionedThroughput": throughputOf(t.Reads, t.Writes), "DeletionProtectionEnabled": t.Protected,
	}
	if t.OnDemand || t.Extra["billing"] != "" {
		mode, summary := "PROVISIONED", object{}
		if t.OnDemand {
			mode = "PAY_PER_REQUEST"
		}
		if status == "ACTIVE" && t.OnDemand {
			at := t.Made
			if ms, err := time.Parse(time.RFC3339Nano, t.Extra["billing"]); err == nil {
				at = ms
			}
			summary["LastUpdateToPayPerRequestDateTime"] = seconds(at)
		}
		summary["BillingMode"] = mode
		d["BillingModeSummary"] = summary
		d["TableThroughputModeSummary"] = object{"TableThroughputMode": mode}
	}
	if !t.Protected {
		delete(d, "DeletionProtectionEnabled")
	}
	if t.Class != "" {
		d["TableClassSummary"] = object{"TableClass": t.Class}
	}
	if t.View != "" {
		d["StreamSpecification"] = object{"StreamEnabled": true, "StreamViewType": string(t.View)}
	}
	if t.Label != "" {
		d["LatestStreamLabel"], d["LatestStreamArn"] = t.Label, c.arn(t.Name)+"/stream/"+t.Label
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		one := c.describeIndex(t, x, status)
		list := map[bool]string{true: "LocalSecondaryIndexes", false: "GlobalSecondaryIndexes"}[x.Local]
		all, _ := d[list].([]object)
		d[list] = append(all, one)
	}
	return d
}

// shownOf is what an index shows.
func shownOf(x *store.Index) object {
	switch {
	case x.All:
		return object{"ProjectionType": "ALL"}
	case x.Attrs != nil:
		return object{"ProjectionType": "INCLUDE", "NonKeyAttributes": x.Attrs}
	}
	return object{"ProjectionType": "KEYS_ONLY"}
}

func (c *call) describeIndex(t *store.Table, x *store.Index, status string) object {
	bytes, items := int64(0), int64(0)
	if x.All {
		bytes, items = t.Bytes, t.Items
	}
	one := object{"IndexName": x.Name, "IndexArn": c.arn(t.Name) + "/index/" + x.Name, "KeySchema": keyElements(x.Key), "Projection": shownOf(x), "IndexSizeBytes": bytes, "ItemCount": items}
	if !x.Local {
		if status == "DELETING" || status == "UPDATING" {
			status = "ACTIVE"
		}
		one["IndexStatus"], one["ProvisionedThroughput"] = status, throughputOf(x.Reads, x.Writes)
	}
	return one
}

func throughputOf(reads, writes int64) object {
	return object{"ReadCapacityUnits": reads, "WriteCapacityUnits": writes, "NumberOfDecreasesToday": 0}
}

// uuidOf shows a table's ID in the form that clients know.
func uuidOf(id string) string {
	h := fmt.Sprintf("%x", id)
	for len(h) < 32 {
		h += "0"
	}
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:32]
}

func allKeys(t *store.Table) []store.Key {
	keys := []store.Key{t.Key}
	for _, x := range t.Indexes {
		keys = append(keys, x.Key)
	}
	return keys
}

// named is the error of an operation on a table as a whole.
func named(err error, table string) error {
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return wire.Errorf("ResourceNotFoundException", "Requested resource not found: Table: %s not found", table)
	case errs.Conflict:
		return wire.Errorf("ValidationException", "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	}
	return err
}

func (s *service) describeTable(ctx context.Context, c *call) ([]byte, error) {
	t, err := s.table(ctx, c)
	if err != nil {
		return nil, named(err, c.n.str("TableName"))
	}
	return described(object{"Table": c.describe(&t, "ACTIVE")})
}

func (s *service) deleteTable(ctx context.Context, c *call) ([]byte, error) {
	t, err := s.tables.Drop(ctx, c.tenant(), c.n.str("TableName"))
	if err != nil {
		return nil, named(err, c.n.str("TableName"))
	}
	d := c.describe(&t, "DELETING")
	delete(d, "GlobalSecondaryIndexes")
	return described(object{"TableDescription": d})
}

// hidden is what the names of the service's own tables begin with; no client's can.
const hidden = "$"

func (s *service) listTables(ctx context.Context, c *call) ([]byte, error) {
	limit := int64(100)
	if n, ok := c.n.num("Limit"); ok {
		limit = n
	}
	all, err := s.tables.List(ctx, c.tenant())
	if err != nil {
		return nil, err
	}
	found := []string{}
	for _, t := range all {
		if t.Name > c.n.str("ExclusiveStartTableName") && !strings.HasPrefix(t.Name, hidden) {
			found = append(found, t.Name)
		}
	}
	out := object{}
	if int64(len(found)) > limit {
		found = found[:limit]
		out["LastEvaluatedTableName"] = found[limit-1]
	}
	out["TableNames"] = found
	return described(out)
}

func (s *service) createTable(ctx context.Context, c *call) ([]byte, error) {
	want, msg := tableOf(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	if want.View != "" {
		want.Label = labelAt(s.now())
	}
	want.Extra = c.Caller.Mark(want.Extra)
	t, err := s.tables.Create(ctx, c.tenant(), want)
	if errs.CodeOf(err) == errs.Exists {
		return nil, wire.Errorf("ResourceInUseException", "Table already exists: %s", want.Name)
	}
	if err != nil {
		return nil, err
	}
	return described(object{"TableDescription": c.describe(&t, "CREATING")})
}

// labelAt is a stream's label: the time it was turned on.
func labelAt(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000") }

func (s *service) updateTable(ctx context.Context, c *call) ([]byte, error) {
	if msg := checkUpdateTable(c.n); msg != "" {
		return nil, fail(msg)
	}
	t, err := s.tables.Alter(ctx, c.tenant(), c.n.str("TableName"), func(t store.Table) (store.Table, error) { return altered(c, t, s.now()) })
	if err != nil {
		return nil, named(err, c.n.str("TableName"))
	}
	return described(object{"TableDescription": c.describe(&t, "UPDATING")})
}

func (s *service) describeTTL(ctx context.Context, c *call) ([]byte, error) {
	t, err := s.table(ctx, c)
	if err != nil {
		return nil, named(err, c.n.str("TableName"))
	}
	d := object{"TimeToLiveStatus": "DISABLED"}
	if t.TTL != "" {
		d["TimeToLiveStatus"], d["AttributeName"] = "ENABLED", t.TTL
	}
	return described(object{"TimeToLiveDescription": d})
}

func (s *service) updateTTL(ctx context.Context, c *call) ([]byte, error) {
	spec := c.n.get("TimeToLiveSpecification")
	name, on := spec.str("AttributeName"), spec.flag("Enabled")
	_, err := s.tables.Alter(ctx, c.tenant(), c.n.str("TableName"), func(t store.Table) (store.Table, error) {
		switch {
		case on && t.TTL == name:
			return t, fail("TimeToLive is already enabled")
		case on && t.TTL != "":
			return t, fail("TimeToLive is active on a different AttributeName: current AttributeName is " + t.TTL)
		case !on && t.TTL == "":
			return t, fail("TimeToLive is already disabled")
		case !on && t.TTL != name:
			return t, fail("TimeToLive is active on a different AttributeName: current AttributeName is " + t.TTL)
		}
		t.TTL = ""
		if on {
			t.TTL = name
		}
		return t, nil
	})
	if err != nil {
		return nil, named(err, c.n.str("TableName"))
	}
	return described(object{"TimeToLiveSpecification": object{"AttributeName": name, "Enabled": on}})
}

var (
	anyARN   = regexp.MustCompile(`^.+:.+:.+:.+:.+:.+/.+$`)
	tableARN = regexp.MustCompile(`^arn:aws:dynamodb:.+:\d+:table/([^/]{3,})$`)
)

// resourceOf returns the table that tags are about.
func (c *call) resourceOf(list string) (string, error) {
	arn := c.n.get("ResourceArn")
	if arn == nil {
		return "", fail("Invalid TableArn")
	}
	if !anyARN.MatchString(arn.text) {
		on := arn.text
		if on == "" {
			on = "*"
		}
		return "", wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: dynamodb:%s on resource: %s", c.Caller.ARN, c.Operation, on)
	}
	if list != "" && c.n.get(list) == nil {
		return "", fail("1 validation error detected: Value null at '" + lowerFirst(list) + "' failed to satisfy constraint: Member must not be null")
	}
	m := tableARN.FindStringSubmatch(arn.text)
	if m == nil {
		return "", fail("Invalid TableArn: Invalid ResourceArn provided as input " + arn.text)
	}
	return m[1], nil
}

// retag changes the tags of the table that a call names.
func (s *service) retag(ctx context.Context, c *call, list, none string, change func(map[string]string)) ([]byte, error) {
	table, err := c.resourceOf(list)
	if err != nil {
		return nil, err
	}
	if len(c.n.get(list).elems) == 0 {
		return nil, fail(none)
	}
	_, err = s.tables.Alter(ctx, c.tenant(), table, func(t store.Table) (store.Table, error) {
		t.Tags = maps.Clone(t.Tags)
		if t.Tags == nil {
			t.Tags = map[string]string{}
		}
		change(t.Tags)
		if len(t.Tags) > 50 {
			return t, fail("One or more parameter values were invalid: Too many tags: the limit is 50")
		}
		return t, nil
	})
	if errs.CodeOf(err) == errs.NotFound && list == "TagKeys" {
		return nil, wire.Errorf("ResourceNotFoundException", "Requested resource not found")
	}
	return nil, c.noResource(err)
}

func (c *call) noResource(err error) error {
	if errs.CodeOf(err) == errs.NotFound {
		return wire.Errorf("ResourceNotFoundException", "Requested resource not found: ResourcArn: %s not found", c.n.str("ResourceArn"))
	}
	return err
}

func (s *service) tag(ctx context.Context, c *call) ([]byte, error) {
	return s.retag(ctx, c, "Tags", "Atleast one Tag needs to be provided as Input.", func(tags map[string]string) {
		list := c.n.get("Tags").elems
		for i := range list {
			tags[list[i].str("Key")] = list[i].str("Value")
		}
	})
}

func (s *service) untag(ctx context.Context, c *call) ([]byte, error) {
	return s.retag(ctx, c, "TagKeys", "Atleast one Tag Key needs to be provided as Input.", func(tags map[string]string) {
		for _, k := range c.n.get("TagKeys").elems {
			delete(tags, k.text)
		}
	})
}

func (s *service) tagsOf(ctx context.Context, c *call) ([]byte, error) {
	table, err := c.resourceOf("")
	if err != nil {
		return nil, err
	}
	t, err := s.tables.Table(ctx, c.tenant(), table)
	if err != nil {
		return nil, c.noResource(err)
	}
	list := []object{}
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		list = append(list, object{"Key": k, "Value": t.Tags[k]})
	}
	return described(object{"Tags": list})
}

func (s *service) describeLimits(context.Context, *call) ([]byte, error) {
	return described(object{"AccountMaxReadCapacityUnits": 80000, "AccountMaxWriteCapacityUnits": 80000, "TableMaxReadCapacityUnits": 40000, "TableMaxWriteCapacityUnits": 40000})
}

func (s *service) describeEndpoints(_ context.Context, c *call) ([]byte, error) {
	return described(object{"Endpoints": []object{{"Address": c.Request.Host, "CachePeriodInMinutes": 1440}}})
}

func (s *service) describeBackups(ctx context.Context, c *call) ([]byte, error) {
	if _, err := s.table(ctx, c); err != nil {
		return nil, wire.Errorf("TableNotFoundException", "Table not found: %s", c.n.str("TableName"))
	}
	return described(object{"ContinuousBackupsDescription": object{"ContinuousBackupsStatus": "DISABLED", "PointInTimeRecoveryDescription": object{"PointInTimeRecoveryStatus": "DISABLED"}}})
}
