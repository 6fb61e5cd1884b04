package server

import "strings"

// ofData are the operations of AWS's services that change what is in a thing; reads say by their names that they are some. All others are control
// changes: what there is, what it is set to, and who may reach it.
var ofData = map[string]bool{
	"SendMessage": true, "SendMessageBatch": true, "ReceiveMessage": true, "DeleteMessage": true, "DeleteMessageBatch": true, "ChangeMessageVisibility": true,
	"ChangeMessageVisibilityBatch": true, "Publish": true, "PublishBatch": true, "PutRecord": true, "PutRecords": true, "PutEvents": true, "TestEventPattern": true,
	"Invoke": true, "InvokeAsync": true, "InvokeWithResponseStream": true,
	"PutItem": true, "DeleteItem": true, "UpdateItem": true, "Query": true, "Scan": true, "BatchWriteItem": true, "TransactGetItems": true, "TransactWriteItems": true,
	"ExecuteStatement": true, "BatchExecuteStatement": true, "ExecuteTransaction": true,
	"PutObject": true, "CopyObject": true, "DeleteObject": true, "DeleteObjects": true, "CreateMultipartUpload": true, "UploadPart": true, "UploadPartCopy": true,
	"CompleteMultipartUpload": true, "AbortMultipartUpload": true, "PutObjectTagging": true, "DeleteObjectTagging": true, "PutObjectLegalHold": true, "PutObjectRetention": true,
	"PostObject": true, "Preflight": true, "Website": true,
}

// isControl says whether an operation is a control change.
func isControl(service, operation string) bool {
	if operation == "" || service == "sts" || ofData[operation] {
		return false
	}
	for _, read := range []string{"Get", "List", "Describe", "Head", "BatchGet"} {
		if strings.HasPrefix(operation, read) {
			return false
		}
	}
	return true
}
