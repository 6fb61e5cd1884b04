package dynamodb

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the tables, indexes and streams, as AWS's "Actions, resources, and condition keys for Amazon DynamoDB" has them. Of a transaction or
// a batch each part is asked about by itself.
func subjects(c *wire.Call, n *node) []wire.Subject {
	of := func(action, table string) wire.Subject {
		if table == "" {
			return wire.Subject{Action: "dynamodb:" + action, Resource: "*"}
		}
		return wire.Subject{Action: "dynamodb:" + action, Resource: c.ARN("dynamodb", "table/"+table)}
	}
	switch c.Operation {
	case "BatchGetItem", "BatchWriteItem":
		var out []wire.Subject
		if items := n.get("RequestItems"); items != nil {
			for i := range items.members {
				out = append(out, of(c.Operation, tableIn(items.members[i].key)))
			}
		}
		return out
	case "TransactGetItems", "TransactWriteItems":
		return transactSubjects(n, of)
	case "ExecuteStatement":
		return statementSubjects([]node{*n}, of)
	case "BatchExecuteStatement":
		return statementSubjects(elems(n.get("Statements")), of)
	case "ExecuteTransaction":
		return statementSubjects(elems(n.get("TransactStatements")), of)
	case "GetRecords":
		p, ok := placeIn(n.str("ShardIterator"))
		if !ok {
			return nil // the operation refuses it
		}
		s := of(c.Operation, p.Table)
		s.Reach = true // the role was asked when the iterator was given
		return []wire.Subject{s}
	case "ListStreams", "DescribeStream", "GetShardIterator":
		if a := n.str("StreamArn"); a != "" {
			return []wire.Subject{of(c.Operation, wire.NameIn(a, ":table/"))} // with the stream's label
		}
	}
	table := n.str("TableName")
	if table == "" {
		table = tableIn(n.str("ResourceArn"))
	}
	s := of(c.Operation, table)
	if index := n.str("IndexName"); index != "" && table != "" {
		s.Resource += "/index/" + index
	}
	return []wire.Subject{s}
}

// tableIn is the name of a table that is given by name or ARN.
func tableIn(s string) string {
	name, _, _ := strings.Cut(wire.NameIn(s, ":table/"), "/")
	return name
}

// statementSubjects names the tables of statements in PartiQL. One that cannot be read is refused by the operation.
func statementSubjects(list []node, of func(action, table string) wire.Subject) (out []wire.Subject) {
	for i := range list {
		st, err := statementOf(&list[i])
		if err != nil {
			continue
		}
		table := st.table
		if st.index != "" {
			table += "/index/" + st.index
		}
		s := of("PartiQL"+st.verb[:1]+strings.ToLower(st.verb[1:]), table)
		if !slices.ContainsFunc(out, func(o wire.Subject) bool { return o.Action == s.Action && o.Resource == s.Resource }) {
			out = append(out, s)
		}
	}
	return out
}

// elems are the elements of a list, or none.
func elems(n *node) []node {
	if n == nil {
		return nil
	}
	return n.elems
}

// inTransaction are the parts of transactions and the actions that they are.
var inTransaction = map[string]string{"Get": "GetItem", "ConditionCheck": "ConditionCheckItem", "Put": "PutItem", "Delete": "DeleteItem", "Update": "UpdateItem"}

func transactSubjects(n *node, of func(action, table string) wire.Subject) []wire.Subject {
	var out []wire.Subject
	items := n.get("TransactItems")
	if items == nil {
		return nil
	}
	for i := range items.elems {
		one := &items.elems[i]
		for part, action := range inTransaction {
			s := of(action, tableIn(one.get(part).str("TableName")))
			if one.get(part) != nil && !slices.ContainsFunc(out, func(o wire.Subject) bool { return o.Action == s.Action && o.Resource == s.Resource }) {
				out = append(out, s)
			}
		}
	}
	return out
}
