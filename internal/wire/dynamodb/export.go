package dynamodb

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// Properties writes the description of a table as the properties of AWS::DynamoDB::Table, which Declared reads back.
func Properties(t *store.Table) ([]byte, error) {
	out := object{"TableName": t.Name, "AttributeDefinitions": definitionsOfTable(t), "KeySchema": keyElements(t.Key)}
	through := func(reads, writes int64) object {
		return object{"ReadCapacityUnits": reads, "WriteCapacityUnits": writes}
	}
	if out["BillingMode"] = "PAY_PER_REQUEST"; !t.OnDemand {
		out["BillingMode"], out["ProvisionedThroughput"] = "PROVISIONED", through(t.Reads, t.Writes)
	}
	if t.View != "" {
		out["StreamSpecification"] = object{"StreamEnabled": true, "StreamViewType": string(t.View)}
	}
	if t.Protected {
		out["DeletionProtectionEnabled"] = true
	}
	if t.Class != "" {
		out["TableClass"] = t.Class
	}
	if t.TTL != "" {
		out["TimeToLiveSpecification"] = object{"AttributeName": t.TTL, "Enabled": true}
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		one := object{"IndexName": x.Name, "KeySchema": keyElements(x.Key), "Projection": shownOf(x)}
		list := "LocalSecondaryIndexes"
		if !x.Local {
			if list = "GlobalSecondaryIndexes"; !t.OnDemand {
				one["ProvisionedThroughput"] = through(x.Reads, x.Writes)
			}
		}
		all, _ := out[list].([]object)
		out[list] = append(all, one)
	}
	if len(t.Tags) > 0 {
		var tags []object
		for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
			tags = append(tags, object{"Key": k, "Value": t.Tags[k]})
		}
		out["Tags"] = tags
	}
	return json.MarshalIndent(out, "", "  ")
}

// Exported reads a line of a table's export in DynamoDB JSON, {"Item":{…}} (DynamoDB guide, "DynamoDB table export output format"). errs.Invalid
// says what is wrong with it.
func Exported(line []byte) (store.Item, error) {
	n, err := parseJSON(line)
	switch {
	case err != nil || n.kind != 'o':
		return nil, errs.New(errs.Invalid, "this is no JSON object").WithHint("Each line of an export is {\"Item\":{…}}; ION is not read: export to S3 with the format DYNAMODB_JSON.")
	case n.get("Keys") != nil && (n.get("NewImage") != nil || n.get("OldImage") != nil || n.get("Metadata") != nil):
		return nil, errs.New(errs.Unsupported, "this is a change of an incremental export").WithHint("Import a full export (FULL_EXPORT).")
	case n.get("Item") == nil || len(n.members) != 1:
		return nil, errs.New(errs.Invalid, "this is not of the form {\"Item\":{…}}")
	}
	fields := []field{{"Item", key.s}}
	if err := fitFields(n, fields); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	if err := check(n, fields); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	it, msg := itemOf(n.get("Item"))
	if msg == "" && it.Size() > maxItem {
		msg = tooLarge
	}
	if msg != "" {
		return nil, errs.New(errs.Invalid, "%s", msg)
	}
	return it, nil
}

// Fits says why an Item cannot be in a table; errs.Invalid.
func Fits(t *store.Table, it store.Item) error {
	if msg := checkItem(it, t); msg != "" {
		return errs.New(errs.Invalid, "%s", msg)
	}
	return nil
}
