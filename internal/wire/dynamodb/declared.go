package dynamodb

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// Declared reads the properties of a declared table, AWS::DynamoDB::Table in JSON, with its name. They are those of CreateTable, but that numbers
// and truth values may be texts, and that the time to live is among them.
func Declared(name string, properties []byte) (store.Table, error) {
	n, err := parseJSON(properties)
	if err != nil || n.kind != 'o' {
		return store.Table{}, errs.New(errs.Invalid, "its properties are not JSON")
	}
	ttl := n.get("TimeToLiveSpecification")
	n.members = append(n.members, member{"TableName", node{kind: 's', text: name}})
	loosen(n)
	if spec := n.get("StreamSpecification"); spec != nil && spec.get("StreamEnabled") == nil {
		spec.members = append(spec.members, member{"StreamEnabled", node{kind: 'b', truth: true}})
	}
	if n.get("ProvisionedThroughput") == nil && n.get("BillingMode") == nil {
		n.members = append(n.members, member{"BillingMode", node{kind: 's', text: "PAY_PER_REQUEST"}})
	}
	if err := fitFields(n, createTableShape); err != nil {
		return store.Table{}, errs.New(errs.Invalid, "%w", err)
	}
	if n.str("BillingMode") == "PAY_PER_REQUEST" { // CloudFormation leaves out what does not apply
		without(n, "ProvisionedThroughput")
		if list := n.get("GlobalSecondaryIndexes"); list != nil {
			for i := range list.elems {
				without(&list.elems[i], "ProvisionedThroughput")
			}
		}
	}
	if err := check(n, createTableShape); err != nil {
		return store.Table{}, errs.New(errs.Invalid, "%w", err)
	}
	t, msg := tableOf(n)
	if msg != "" {
		return store.Table{}, errs.New(errs.Invalid, "%s", msg)
	}
	if ttl != nil {
		loosen(ttl)
		if ttl.flag("Enabled") {
			t.TTL = ttl.str("AttributeName")
		}
	}
	return t, nil
}

func without(n *node, name string) {
	for i := range n.members {
		if n.members[i].key == name {
			n.members[i].val = node{}
		}
	}
}

// loosen makes numbers and truth values of the texts that templates may have in their place.
func loosen(n *node) {
	for i := range n.members {
		m := &n.members[i]
		switch m.key {
		case "ReadCapacityUnits", "WriteCapacityUnits":
			if _, err := strconv.ParseInt(m.val.text, 10, 64); err == nil {
				m.val.kind = 'n'
			}
		case "Enabled", "StreamEnabled", "DeletionProtectionEnabled":
			_ = fitTruth(&m.val)
		case "Tags":
			continue
		}
		loosen(&m.val)
	}
	for i := range n.elems {
		loosen(&n.elems[i])
	}
}

// ItemJSON writes an Item as DynamoDB's JSON.
func ItemJSON(it store.Item) []byte { return appendItem(nil, it) }

// StreamLabel is the label of a stream that was turned on at the table's making.
func StreamLabel(t *store.Table) string { return labelAt(t.Made) }

// EventID names a record: the same one whenever it is read.
func EventID(t *store.Table, r *store.Record) string {
	sum := sha256.Sum256([]byte(t.ID + " " + strconv.FormatUint(r.Seq, 10)))
	return hex.EncodeToString(sum[:16])
}
