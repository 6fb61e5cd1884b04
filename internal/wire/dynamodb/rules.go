package dynamodb

// The shapes of the requests: API reference of DynamoDB, with the order of checks that it has.

var (
	anyText  = &rule{kind: text}
	anyTruth = &rule{kind: truth}
	attrs    = &rule{kind: mapping, of: "AttributeValue", elem: &rule{kind: attribute}}
	attrList = &rule{kind: list, elem: &rule{kind: attribute}}

	attrFields = []field{
		{"S", anyText}, {"B", &rule{kind: blob}}, {"N", anyText}, {"BOOL", anyTruth}, {"NULL", anyTruth},
		{"BS", &rule{kind: list, elem: &rule{kind: blob}}}, {"NS", &rule{kind: list, elem: anyText}}, {"SS", &rule{kind: list, elem: anyText}},
		{"L", attrList}, {"M", attrs},
	}

	capacity   = field{"ReturnConsumedCapacity", oneOf("INDEXES", "TOTAL", "NONE")}
	metrics    = field{"ReturnItemCollectionMetrics", oneOf("SIZE", "NONE")}
	onFailure  = field{"ReturnValuesOnConditionCheckFailure", oneOf("ALL_OLD", "NONE")}
	tableName  = field{"TableName", &rule{kind: text, notNull: true, pattern: names, minLen: 3, maxLen: 255}}
	indexNamed = field{"IndexName", &rule{kind: text, pattern: names, minLen: 3, maxLen: 255}}
	key        = field{"Key", &rule{kind: mapping, of: "AttributeValue", notNull: true, elem: &rule{kind: attribute}}}
	operator   = field{"ConditionalOperator", oneOf("OR", "AND")}
	returns    = field{"ReturnValues", oneOf("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW")}
	toGet      = field{"AttributesToGet", &rule{kind: list, minLen: 1, maxLen: 255, elem: anyText}}
	condition  = field{"ConditionExpression", anyText}
	projection = field{"ProjectionExpression", anyText}
	filter     = field{"FilterExpression", anyText}
	exprValues = field{"ExpressionAttributeValues", attrs}
	exprNames  = field{"ExpressionAttributeNames", &rule{kind: mapping, of: "java.lang.String", elem: anyText}}

	comparison = []string{"IN", "NULL", "BETWEEN", "LT", "NOT_CONTAINS", "EQ", "GT", "NOT_NULL", "NE", "LE", "BEGINS_WITH", "GE", "CONTAINS"}
	expected   = field{"Expected", &rule{kind: mapping, of: "ExpectedAttributeValue", elem: &rule{kind: value, of: "ExpectedAttributeValue", fields: []field{
		{"AttributeValueList", attrList}, {"ComparisonOperator", oneOf(comparison...)}, {"Exists", anyTruth}, {"Value", &rule{kind: attrField}},
	}}}}

	getItemShape    = []field{capacity, toGet, tableName, key, {"ConsistentRead", anyTruth}, projection, exprNames}
	putItemShape    = []field{capacity, tableName, {"Item", key.s}, operator, expected, returns, metrics, condition, exprValues, exprNames, onFailure}
	deleteItemShape = []field{capacity, tableName, returns, metrics, key, operator, expected, condition, exprValues, exprNames, onFailure}
	updateItemShape = []field{
		capacity, tableName, metrics, returns, key, operator, expected,
		{"AttributeUpdates", &rule{kind: mapping, of: "AttributeValueUpdate", elem: &rule{kind: value, of: "AttributeValueUpdate", fields: []field{
			{"Action", anyText}, {"Value", &rule{kind: attrField}},
		}}}},
		condition, {"UpdateExpression", anyText}, exprValues, exprNames, onFailure,
	}

	selecting  = field{"Select", oneOf("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES")}
	limit      = field{"Limit", atLeast(integer, 1)}
	queryShape = []field{
		selecting, indexNamed, capacity, {"QueryFilter", conditions(false)}, tableName, operator, toGet, limit, {"KeyConditions", conditions(true)},
		{"ExclusiveStartKey", attrs}, {"ConsistentRead", anyTruth}, {"ScanIndexForward", anyTruth}, {"KeyConditionExpression", anyText}, filter, projection, exprValues, exprNames,
	}
	scanShape = []field{
		selecting, indexNamed, {"TotalSegments", atLeast(integer, 1)}, capacity, tableName, operator, {"ScanFilter", conditions(false)}, {"Segment", atLeast(integer, 0)},
		limit, toGet, {"ExclusiveStartKey", attrs}, {"ConsistentRead", anyTruth}, filter, projection, exprValues, exprNames,
	}

	tableKeys     = &rule{minLen: 3, maxLen: 255, pattern: names}
	batchGetShape = []field{capacity, {"RequestItems", &rule{kind: mapping, of: "KeysAndAttributes", notNull: true, minLen: 1, keys: tableKeys,
		elem: &rule{kind: value, of: "KeysAndAttributes", fields: []field{
			{"Keys", &rule{kind: list, notNull: true, minLen: 1, maxLen: 100, elem: &rule{kind: rawMap, elem: &rule{kind: attribute}}}},
			toGet, {"ConsistentRead", anyTruth}, projection, exprNames,
		}}}}}
	batchWriteShape = []field{capacity, metrics, {"RequestItems", &rule{kind: mapping, of: "java.util.List<com.amazonaws.dynamodb.v20120810.WriteRequest>", notNull: true, minLen: 1,
		keys: tableKeys, values: &rule{minLen: 1, maxLen: 25},
		elem: &rule{kind: rawList, elem: &rule{kind: value, of: "WriteRequest", fields: []field{
			{"DeleteRequest", &rule{kind: structured, of: "DeleteRequest", fields: []field{key}}},
			{"PutRequest", &rule{kind: structured, of: "PutRequest", fields: []field{{"Item", key.s}}}},
		}}}}}}

	transactTable = field{"TableName", tableName.s}
	transactGets  = []field{{"TransactItems", &rule{kind: list, notNull: true, minLen: 1, maxLen: 100, elem: &rule{kind: value, of: "TransactGetItem", fields: []field{
		{"Get", &rule{kind: structured, of: "Get", notNull: true, fields: []field{key, transactTable, projection, exprNames}}},
	}}}}, capacity}
	transactWrites = []field{{"TransactItems", &rule{kind: list, notNull: true, minLen: 1, maxLen: 100, elem: &rule{kind: value, of: "TransactWriteItem", fields: []field{
		{"ConditionCheck", &rule{kind: structured, of: "ConditionCheck", fields: []field{key, transactTable, {"ConditionExpression", &rule{kind: text, notNull: true}}, exprNames, exprValues, onFailure}}},
		{"Put", &rule{kind: structured, of: "Put", fields: []field{{"Item", key.s}, transactTable, condition, exprNames, exprValues, onFailure}}},
		{"Delete", &rule{kind: structured, of: "Delete", fields: []field{key, transactTable, condition, exprNames, exprValues, onFailure}}},
		{"Update", &rule{kind: structured, of: "Update", fields: []field{key, {"UpdateExpression", &rule{kind: text, notNull: true}}, transactTable, condition, exprNames, exprValues, onFailure}}},
	}}}}, capacity, metrics, {"ClientRequestToken", &rule{kind: text, minLen: 1, maxLen: 36}}}

	units = []field{{"WriteCapacityUnits", &rule{kind: long, notNull: true, hasLeast: true, least: 1}}, {"ReadCapacityUnits", &rule{kind: long, notNull: true, hasLeast: true, least: 1}}}

	throughput  = field{"ProvisionedThroughput", &rule{kind: structured, of: "ProvisionedThroughput", fields: units}}
	billing     = field{"BillingMode", oneOf("PROVISIONED", "PAY_PER_REQUEST")}
	ownTable    = field{"TableName", &rule{kind: text, required: true, table: true, pattern: names}}
	indexKeys   = field{"KeySchema", keySchema(nil)}
	projected   = field{"Projection", &rule{kind: structured, of: "Projection", notNull: true, fields: []field{{"ProjectionType", oneOf("ALL", "INCLUDE", "KEYS_ONLY")}, {"NonKeyAttributes", &rule{kind: list, minLen: 1, elem: anyText}}}}}
	indexName   = field{"IndexName", &rule{kind: text, notNull: true, pattern: names, minLen: 3, maxLen: 255}}
	definitions = &rule{kind: list, elem: &rule{kind: value, of: "AttributeDefinition", fields: []field{
		{"AttributeName", &rule{kind: text, notNull: true}}, {"AttributeType", &rule{kind: text, notNull: true, enum: []string{"B", "N", "S"}}},
	}}}
	tagList = &rule{kind: list, elem: &rule{kind: value, of: "Tag", fields: []field{{"Value", &rule{kind: text, notNull: true}}, {"Key", &rule{kind: text, notNull: true}}}}}
	stream  = field{"StreamSpecification", &rule{kind: structured, of: "StreamSpecification", fields: []field{
		{"StreamEnabled", &rule{kind: truth, notNull: true}}, {"StreamViewType", oneOf("NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY")},
	}}}

	createTableShape = []field{
		{"AttributeDefinitions", &rule{kind: list, notNull: true, elem: definitions.elem}}, ownTable, billing, throughput,
		{"KeySchema", keySchema([]string{"HASH", "RANGE"})},
		{"LocalSecondaryIndexes", &rule{kind: list, elem: &rule{kind: value, of: "LocalSecondaryIndex", fields: []field{indexName, indexKeys, projected}}}},
		{"GlobalSecondaryIndexes", &rule{kind: list, elem: &rule{kind: value, of: "GlobalSecondaryIndex", fields: []field{indexName, indexKeys, projected, throughput}}}},
		stream, {"Tags", tagList}, {"TableClass", oneOf("STANDARD", "STANDARD_INFREQUENT_ACCESS")}, {"DeletionProtectionEnabled", anyTruth},
	}
	needThroughput   = field{"ProvisionedThroughput", &rule{kind: structured, of: "ProvisionedThroughput", notNull: true, fields: units}}
	updateTableShape = []field{
		ownTable, throughput, billing,
		{"GlobalSecondaryIndexUpdates", &rule{kind: list, elem: &rule{kind: value, of: "GlobalSecondaryIndexUpdate", fields: []field{
			{"Update", &rule{kind: structured, of: "UpdateGlobalSecondaryIndexAction", fields: []field{indexName, needThroughput}}},
			{"Create", &rule{kind: structured, of: "CreateGlobalSecondaryIndexAction", fields: []field{projected, indexName, throughput, indexKeys}}},
			{"Delete", &rule{kind: structured, of: "DeleteGlobalSecondaryIndexAction", fields: []field{indexName}}},
		}}}},
		{"AttributeDefinitions", definitions}, stream, {"DeletionProtectionEnabled", anyTruth}, {"TableClass", oneOf("STANDARD", "STANDARD_INFREQUENT_ACCESS")},
		{"SSESpecification", &rule{kind: structured, of: "SSESpecification"}},
	}
	aTableShape     = []field{ownTable}
	listTablesShape = []field{{"ExclusiveStartTableName", &rule{kind: text, pattern: names, minLen: 3, maxLen: 255}}, {"Limit", &rule{kind: integer, hasLeast: true, least: 1, most: 100}}}
	ttlShape        = []field{{"TimeToLiveSpecification", &rule{kind: structured, of: "TimeToLiveSpecification", notNull: true, fields: []field{
		{"AttributeName", &rule{kind: text, notNull: true, minLen: 1, maxLen: 255}}, {"Enabled", &rule{kind: truth, notNull: true}},
	}}}, tableName}
	resource     = field{"ResourceArn", anyText}
	tagShape     = []field{resource, {"Tags", tagList}}
	untagShape   = []field{resource, {"TagKeys", &rule{kind: list, elem: anyText}}}
	tagsOfShape  = []field{resource, {"NextToken", anyText}}
	nothingShape []field

	aStatement       = []field{{"Statement", &rule{kind: text, notNull: true, minLen: 1, maxLen: 8192}}, {"Parameters", attrList}, {"ConsistentRead", anyTruth}, onFailure}
	statementShape   = append([]field{limit, {"NextToken", anyText}, capacity}, aStatement...)
	statementsShape  = []field{{"Statements", &rule{kind: list, notNull: true, minLen: 1, maxLen: 25, elem: &rule{kind: value, of: "BatchStatementRequest", fields: aStatement}}}, capacity}
	statementTxShape = []field{{"TransactStatements", &rule{kind: list, notNull: true, minLen: 1, maxLen: 100, elem: &rule{kind: value, of: "ParameterizedStatement", fields: aStatement}}},
		{"ClientRequestToken", anyText}, capacity}
)

func oneOf(values ...string) *rule { return &rule{kind: text, enum: values} }

func atLeast(k kind, least int64) *rule { return &rule{kind: k, hasLeast: true, least: least} }

func keySchema(types []string) *rule {
	return &rule{kind: list, notNull: true, minLen: 1, maxLen: 2, elem: &rule{kind: value, of: "KeySchemaElement", fields: []field{
		{"AttributeName", &rule{kind: text, notNull: true}}, {"KeyType", &rule{kind: text, notNull: true, enum: types}},
	}}}
}

// conditions is the shape of the older conditions; those of keys have their members in another order.
func conditions(keys bool) *rule {
	fields := []field{{"AttributeValueList", attrList}, {"ComparisonOperator", &rule{kind: text, notNull: true, enum: comparison}}}
	if keys {
		fields[0], fields[1] = fields[1], fields[0]
	}
	return &rule{kind: mapping, of: "Condition", elem: &rule{kind: value, of: "Condition", fields: fields}}
}
