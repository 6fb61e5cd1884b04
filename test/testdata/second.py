# Calls services as a client from outside, and prints what each call was answered, one a line: its name, a tab, JSON without what no two servers
# have alike (ids, times, addresses). It ends with an error where a call is not answered as it should be: second.py URL ACCESS-KEY SECRET
import base64, boto3, datetime, io, json, re, sys, time
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
client = lambda n: boto3.client(n, endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret, config=Config(retries={'max_attempts': 0}, s3={'addressing_style': 'path'}))
ddb, sqs, sns, s3, ssm, sm, ev, sch = [client(n) for n in ['dynamodb', 'sqs', 'sns', 's3', 'ssm', 'secretsmanager', 'events', 'scheduler']]
OPAQUE = {'ReceiptHandle', 'NextToken', 'nextToken', 'MessageId', 'VersionId', 'ETag', 'UploadId', 'SubscriptionArn', 'TaskHandle', 'RandomPassword', 'TableId', 'SequenceNumber', 'EventId', 'EventSourceArn', 'SenderId', 'LastModifiedUser',
          'ConfigurationId', 'Message', 'message', 'LatestStreamLabel', 'LatestStreamArn', 'Owner', 'ID', 'ContinuationToken', 'NextContinuationToken', 'SecretBinary'}
def plain(v, k=''):
    if k in OPAQUE and v not in (None, ''): return '<opaque>'
    if k in ('VersionIdsToStages', 'SecretVersionsToStages'): return sorted(sorted(x) for x in v.values())
    if isinstance(v, dict): return {a: plain(b, a) for a, b in v.items() if a not in ('ResponseMetadata', 'HostId', 'RequestId')}
    if isinstance(v, (list, tuple, set)): return sorted((plain(x, k) for x in v), key=lambda x: json.dumps(x, sort_keys=True, default=str)) if not ordered else [plain(x, k) for x in v]
    if isinstance(v, datetime.datetime) or isinstance(v, int) and v > 1e12: return '<time>'
    if hasattr(v, 'read'): return v.read().decode()
    if isinstance(v, (bytes, bytearray)): return base64.b64encode(v).decode()
    if isinstance(v, str):
        v = v.replace(url, '<url>')
        v = re.sub(r'https?://[a-z0-9.:-]+/', '<url>/', v)
        v = re.sub(r'\b\d{12}\b', '<account>', v)
        v = re.sub(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '<id>', v)
        v = re.sub(r'(secret:[\w/-]+)-[A-Za-z0-9]{6}$', r'\1-<id>', v)
        v = re.sub(r'^\d{10,13}(\.\d+)?$', '<time>', v)
        v = re.sub(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?', '<time>', v)
    return v
ordered, count = False, {}
def call(c, op, want=None, keep=False, **k):
    global ordered
    if op not in c.meta.method_to_api_mapping: return {} # an old client
    name = c.meta.service_model.service_name + ' ' + c.meta.method_to_api_mapping[op]
    count[name] = count.get(name, 0) + 1
    name += ' %d' % count[name]
    ordered, r, code = keep, None, None
    try: r = getattr(c, op)(**k)
    except ClientError as e: code = e.response['Error']['Code']; r0 = {'code': code, 'status': e.response['ResponseMetadata']['HTTPStatusCode']}
    except Exception as e: code = type(e).__name__; r0 = {'client': code}
    print(name + '\t' + json.dumps(plain(r) if r is not None else r0, sort_keys=True, default=str))
    if (code or None) != want: print(name + '\t' + json.dumps({'unexpected': '%s, not %s' % (code, want), 'of': str(k)[:200]}))
    return r or {}

def dynamodb():
    spec = dict(AttributeDefinitions=[dict(AttributeName='p', AttributeType='S'), dict(AttributeName='s', AttributeType='N'), dict(AttributeName='g', AttributeType='S')],
        KeySchema=[dict(AttributeName='p', KeyType='HASH'), dict(AttributeName='s', KeyType='RANGE')], BillingMode='PAY_PER_REQUEST',
        GlobalSecondaryIndexes=[dict(IndexName='byG', KeySchema=[dict(AttributeName='g', KeyType='HASH')], Projection=dict(ProjectionType='KEYS_ONLY'))], Tags=[dict(Key='a', Value='b')])
    call(ddb, 'create_table', TableName='tab', **spec)
    call(ddb, 'create_table', 'ResourceInUseException', TableName='tab', **spec)
    call(ddb, 'describe_table', 'ResourceNotFoundException', TableName='none')
    arn = call(ddb, 'describe_table', TableName='tab')['Table']['TableArn']
    call(ddb, 'list_tables')
    item = lambda p, s, **k: dict(p={'S': p}, s={'N': str(s)}, **k)
    call(ddb, 'put_item', TableName='tab', Item=item('a', 1, g={'S': 'x'}, m={'M': {'l': {'L': [{'N': '1'}, {'BOOL': True}, {'NULL': True}]}}}, ss={'SS': ['1', '2']}, b={'B': b'\0\xff'}))
    call(ddb, 'put_item', TableName='tab', Item=item('a', 1, g={'S': 'y'}), ReturnValues='ALL_OLD')
    call(ddb, 'put_item', 'ConditionalCheckFailedException', TableName='tab', Item=item('a', 1), ConditionExpression='attribute_not_exists(p)')
    call(ddb, 'put_item', 'ValidationException', TableName='tab', Item={'p': {'S': 'a'}})
    call(ddb, 'put_item', 'ValidationException', TableName='tab', Item=item('a', 1), ConditionExpression='attribute_not_exists(')
    call(ddb, 'get_item', TableName='tab', Key=item('a', 1), ConsistentRead=True)
    call(ddb, 'get_item', TableName='tab', Key=item('none', 1))
    call(ddb, 'get_item', 'ValidationException', TableName='tab', Key={'p': {'S': 'a'}})
    call(ddb, 'update_item', TableName='tab', Key=item('a', 2), UpdateExpression='SET n = if_not_exists(n, :z) + :o, #l = list_append(if_not_exists(#l, :e), :v)', ExpressionAttributeNames={'#l': 'l'},
         ExpressionAttributeValues={':z': {'N': '0'}, ':o': {'N': '1.50'}, ':e': {'L': []}, ':v': {'L': [{'S': 'q'}]}}, ReturnValues='ALL_NEW')
    call(ddb, 'update_item', TableName='tab', Key=item('a', 2), UpdateExpression='ADD n :o, ss :s REMOVE #l[0]', ExpressionAttributeNames={'#l': 'l'}, ExpressionAttributeValues={':o': {'N': '2'}, ':s': {'SS': ['z']}}, ReturnValues='UPDATED_NEW')
    call(ddb, 'update_item', TableName='tab', Key=item('a', 2), UpdateExpression='DELETE ss :s', ExpressionAttributeValues={':s': {'SS': ['z']}}, ReturnValues='ALL_OLD')
    call(ddb, 'update_item', 'ValidationException', TableName='tab', Key=item('a', 2), UpdateExpression='SET p = :o', ExpressionAttributeValues={':o': {'S': 'x'}})
    call(ddb, 'update_item', 'ValidationException', TableName='tab', Key=item('a', 2), UpdateExpression='SET n = :none')
    call(ddb, 'batch_write_item', RequestItems={'tab': [{'PutRequest': {'Item': item('b', i, g={'S': 'x'})}} for i in range(10)] + [{'DeleteRequest': {'Key': item('a', 1)}}]})
    call(ddb, 'batch_write_item', 'ValidationException', RequestItems={'tab': [{'PutRequest': {'Item': item('c', 1)}}, {'DeleteRequest': {'Key': item('c', 1)}}]})
    call(ddb, 'batch_get_item', RequestItems={'tab': {'Keys': [item('b', 3), item('b', 4), item('none', 1)], 'ProjectionExpression': 's'}})
    call(ddb, 'query', keep=True, TableName='tab', KeyConditionExpression='p = :p AND s BETWEEN :a AND :b', FilterExpression='n <> :c', ExpressionAttributeValues={':p': {'S': 'b'}, ':a': {'N': '2'}, ':b': {'N': '6'}, ':c': {'N': '4'}}, ScanIndexForward=False)
    call(ddb, 'query', keep=True, TableName='tab', KeyConditionExpression='p = :p', ExpressionAttributeValues={':p': {'S': 'b'}}, Limit=3)
    call(ddb, 'query', TableName='tab', IndexName='byG', KeyConditionExpression='g = :g', ExpressionAttributeValues={':g': {'S': 'x'}}, Select='COUNT')
    call(ddb, 'query', 'ValidationException', TableName='tab', KeyConditionExpression='s = :s', ExpressionAttributeValues={':s': {'N': '1'}})
    call(ddb, 'query', 'ValidationException', TableName='tab', IndexName='none', KeyConditionExpression='g = :g', ExpressionAttributeValues={':g': {'S': 'x'}})
    call(ddb, 'scan', TableName='tab', FilterExpression='s < :m AND begins_with(p, :b)', ExpressionAttributeValues={':m': {'N': '2'}, ':b': {'S': 'b'}})
    call(ddb, 'scan', TableName='tab', Select='COUNT')
    call(ddb, 'transact_write_items', TransactItems=[{'Put': {'TableName': 'tab', 'Item': item('d', 1)}}, {'Update': {'TableName': 'tab', 'Key': item('b', 1), 'UpdateExpression': 'SET k = :k', 'ExpressionAttributeValues': {':k': {'S': 'v'}}}}, {'Delete': {'TableName': 'tab', 'Key': item('b', 2)}}])
    call(ddb, 'transact_write_items', 'TransactionCanceledException', TransactItems=[{'Put': {'TableName': 'tab', 'Item': item('e', 1)}}, {'ConditionCheck': {'TableName': 'tab', 'Key': item('none', 1), 'ConditionExpression': 'attribute_exists(p)'}}])
    call(ddb, 'transact_get_items', TransactItems=[{'Get': {'TableName': 'tab', 'Key': item('d', 1)}}, {'Get': {'TableName': 'tab', 'Key': item('e', 1)}}])
    call(ddb, 'execute_statement', Statement='SELECT s FROM "tab" WHERE p = ? AND s = 3', Parameters=[{'S': 'b'}])
    call(ddb, 'execute_statement', Statement="INSERT INTO tab VALUE {'p': 'sql', 's': 1}")
    call(ddb, 'batch_execute_statement', Statements=[{'Statement': "SELECT * FROM tab WHERE p = 'sql' AND s = 1"}])
    call(ddb, 'execute_transaction', TransactStatements=[{'Statement': "UPDATE tab SET q = 1 WHERE p = 'sql' AND s = 1"}])
    call(ddb, 'delete_item', TableName='tab', Key=item('d', 1), ReturnValues='ALL_OLD')
    call(ddb, 'delete_item', TableName='tab', Key=item('d', 1))
    call(ddb, 'delete_item', 'ConditionalCheckFailedException', TableName='tab', Key=item('d', 1), ConditionExpression='attribute_exists(p)')
    call(ddb, 'update_time_to_live', TableName='tab', TimeToLiveSpecification=dict(Enabled=True, AttributeName='ttl'))
    call(ddb, 'describe_time_to_live', TableName='tab')
    call(ddb, 'update_table', TableName='tab', StreamSpecification=dict(StreamEnabled=True, StreamViewType='NEW_AND_OLD_IMAGES'))
    call(ddb, 'describe_continuous_backups', TableName='tab')
    call(ddb, 'describe_limits'); call(ddb, 'describe_endpoints')
    call(ddb, 'tag_resource', ResourceArn=arn, Tags=[dict(Key='c', Value='d')])
    call(ddb, 'list_tags_of_resource', ResourceArn=arn)
    call(ddb, 'untag_resource', ResourceArn=arn, TagKeys=['a'])
    call(ddb, 'list_tags_of_resource', ResourceArn=arn)
    call(ddb, 'delete_table', TableName='tab')
    call(ddb, 'delete_table', 'ResourceNotFoundException', TableName='tab')

def queues():
    q = call(sqs, 'create_queue', QueueName='q', Attributes={'VisibilityTimeout': '0'}, tags={'a': 'b'})['QueueUrl']
    call(sqs, 'create_queue', QueueName='q', Attributes={'VisibilityTimeout': '0'}, tags={'a': 'b'})
    call(sqs, 'create_queue', 'QueueAlreadyExists', QueueName='q', Attributes={'VisibilityTimeout': '5'})
    call(sqs, 'create_queue', 'InvalidParameterValue', QueueName='q?')
    call(sqs, 'get_queue_url', QueueName='q')
    call(sqs, 'get_queue_url', 'AWS.SimpleQueueService.NonExistentQueue', QueueName='none')
    call(sqs, 'list_queues', QueueNamePrefix='q')
    call(sqs, 'get_queue_attributes', QueueUrl=q, AttributeNames=['All'])
    call(sqs, 'set_queue_attributes', QueueUrl=q, Attributes={'DelaySeconds': '0', 'MessageRetentionPeriod': '600'})
    call(sqs, 'set_queue_attributes', 'InvalidAttributeValue', QueueUrl=q, Attributes={'MessageRetentionPeriod': '1'})
    call(sqs, 'get_queue_attributes', QueueUrl=q, AttributeNames=['MessageRetentionPeriod', 'QueueArn'])
    call(sqs, 'send_message', QueueUrl=q, MessageBody='hello ☃', MessageAttributes={'k': {'DataType': 'String', 'StringValue': 'v'}, 'n': {'DataType': 'Number', 'StringValue': '1'}, 'b': {'DataType': 'Binary', 'BinaryValue': b'\0'}})
    call(sqs, 'send_message', 'MissingParameter', QueueUrl=q, MessageBody='')
    call(sqs, 'send_message', 'InvalidMessageContents', QueueUrl=q, MessageBody='\x01')
    call(sqs, 'receive_message', QueueUrl=q, MessageAttributeNames=['All'], AttributeNames=['SentTimestamp', 'ApproximateReceiveCount'])
    call(sqs, 'change_message_visibility', 'InvalidParameterValue', QueueUrl=q, ReceiptHandle=sqs.receive_message(QueueUrl=q, WaitTimeSeconds=10)['Messages'][0]['ReceiptHandle'], VisibilityTimeout=60)
    h = call(sqs, 'receive_message', QueueUrl=q, MaxNumberOfMessages=10, VisibilityTimeout=30)['Messages'][0]['ReceiptHandle']
    call(sqs, 'receive_message', 'InvalidParameterValue', QueueUrl=q, MaxNumberOfMessages=11)
    call(sqs, 'change_message_visibility', QueueUrl=q, ReceiptHandle=h, VisibilityTimeout=60)
    call(sqs, 'receive_message', QueueUrl=q)
    call(sqs, 'change_message_visibility_batch', QueueUrl=q, Entries=[{'Id': 'a', 'ReceiptHandle': h, 'VisibilityTimeout': 0}])
    h = call(sqs, 'receive_message', QueueUrl=q, WaitTimeSeconds=10)['Messages'][0]['ReceiptHandle']
    call(sqs, 'delete_message', QueueUrl=q, ReceiptHandle=h)
    call(sqs, 'delete_message', 'ReceiptHandleIsInvalid', QueueUrl=q, ReceiptHandle='none')
    call(sqs, 'send_message_batch', QueueUrl=q, Entries=[{'Id': 'a', 'MessageBody': '1'}, {'Id': 'b', 'MessageBody': '2'}])
    call(sqs, 'send_message_batch', 'AWS.SimpleQueueService.BatchEntryIdsNotDistinct', QueueUrl=q, Entries=[{'Id': 'a', 'MessageBody': '1'}, {'Id': 'a', 'MessageBody': '2'}])
    call(sqs, 'send_message_batch', 'AWS.SimpleQueueService.EmptyBatchRequest', QueueUrl=q, Entries=[])
    m = call(sqs, 'receive_message', QueueUrl=q, MaxNumberOfMessages=10, WaitTimeSeconds=10)['Messages']
    call(sqs, 'delete_message_batch', QueueUrl=q, Entries=[{'Id': str(i), 'ReceiptHandle': x['ReceiptHandle']} for i, x in enumerate(m)])
    call(sqs, 'tag_queue', QueueUrl=q, Tags={'c': 'd'}); call(sqs, 'list_queue_tags', QueueUrl=q); call(sqs, 'untag_queue', QueueUrl=q, TagKeys=['a']); call(sqs, 'list_queue_tags', QueueUrl=q)
    call(sqs, 'add_permission', QueueUrl=q, Label='l', AWSAccountIds=['123456789012'], Actions=['SendMessage']); call(sqs, 'remove_permission', QueueUrl=q, Label='l')
    call(sqs, 'purge_queue', QueueUrl=q)
    arn = sqs.get_queue_attributes(QueueUrl=q, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
    src = call(sqs, 'create_queue', QueueName='src', Attributes={'RedrivePolicy': json.dumps({'deadLetterTargetArn': arn, 'maxReceiveCount': 1}), 'VisibilityTimeout': '0'})['QueueUrl']
    call(sqs, 'list_dead_letter_source_queues', QueueUrl=q)
    call(sqs, 'start_message_move_task', SourceArn=arn); call(sqs, 'list_message_move_tasks', SourceArn=arn)
    call(sqs, 'cancel_message_move_task', 'ResourceNotFoundException', TaskHandle=base64.b64encode(json.dumps({'taskId': '5b1ee0f7-5ca8-4d2b-8a0c-0d1bf6a0ff10', 'sourceArn': arn}).encode()).decode())
    f = call(sqs, 'create_queue', QueueName='f.fifo', Attributes={'FifoQueue': 'true', 'ContentBasedDeduplication': 'true'})['QueueUrl']
    call(sqs, 'create_queue', 'InvalidParameterValue', QueueName='g', Attributes={'FifoQueue': 'true'})
    call(sqs, 'send_message', 'MissingParameter', QueueUrl=f, MessageBody='1')
    call(sqs, 'send_message', QueueUrl=f, MessageBody='1', MessageGroupId='g'); call(sqs, 'send_message', QueueUrl=f, MessageBody='1', MessageGroupId='g')
    call(sqs, 'receive_message', QueueUrl=f, MaxNumberOfMessages=10, AttributeNames=['MessageGroupId', 'MessageDeduplicationId'])
    for u in [q, src, f]: call(sqs, 'delete_queue', QueueUrl=u)
    call(sqs, 'send_message', 'AWS.SimpleQueueService.NonExistentQueue', QueueUrl=q, MessageBody='x')

def topics():
    t = call(sns, 'create_topic', Name='n', Attributes={'DisplayName': 'D'}, Tags=[{'Key': 'a', 'Value': 'b'}])['TopicArn']
    call(sns, 'create_topic', Name='n', Attributes={'DisplayName': 'D'}, Tags=[{'Key': 'a', 'Value': 'b'}]); call(sns, 'create_topic', 'InvalidParameter', Name='n?')
    call(sns, 'list_topics'); call(sns, 'get_topic_attributes', TopicArn=t); call(sns, 'get_topic_attributes', 'NotFound', TopicArn=t + 'none')
    call(sns, 'set_topic_attributes', TopicArn=t, AttributeName='DisplayName', AttributeValue='E'); call(sns, 'get_topic_attributes', TopicArn=t)
    call(sns, 'set_topic_attributes', 'InvalidParameter', TopicArn=t, AttributeName='None', AttributeValue='E')
    q = sqs.create_queue(QueueName='sub')['QueueUrl']
    arn = sqs.get_queue_attributes(QueueUrl=q, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
    sub = call(sns, 'subscribe', TopicArn=t, Protocol='sqs', Endpoint=arn, Attributes={'RawMessageDelivery': 'true'}, ReturnSubscriptionArn=True)['SubscriptionArn']
    call(sns, 'subscribe', 'NotFound', TopicArn=t + 'none', Protocol='sqs', Endpoint=arn); call(sns, 'subscribe', 'InvalidParameter', TopicArn=t, Protocol='none', Endpoint=arn)
    call(sns, 'list_subscriptions'); call(sns, 'list_subscriptions_by_topic', TopicArn=t); call(sns, 'get_subscription_attributes', SubscriptionArn=sub)
    call(sns, 'set_subscription_attributes', SubscriptionArn=sub, AttributeName='FilterPolicy', AttributeValue='{"k":["v"]}')
    call(sns, 'set_subscription_attributes', 'InvalidParameter', SubscriptionArn=sub, AttributeName='FilterPolicy', AttributeValue='{"k":')
    call(sns, 'get_subscription_attributes', SubscriptionArn=sub)
    call(sns, 'publish', TopicArn=t, Message='m', MessageAttributes={'k': {'DataType': 'String', 'StringValue': 'v'}}); call(sns, 'publish', 'NotFound', TopicArn=t + 'none', Message='m')
    call(sns, 'publish', 'InvalidParameter', TopicArn=t, Message='')
    call(sns, 'publish_batch', TopicArn=t, PublishBatchRequestEntries=[{'Id': 'a', 'Message': '1'}, {'Id': 'b', 'Message': '2'}])
    call(sns, 'publish_batch', 'BatchEntryIdsNotDistinct', TopicArn=t, PublishBatchRequestEntries=[{'Id': 'a', 'Message': '1'}, {'Id': 'a', 'Message': '2'}])
    call(sqs, 'receive_message', QueueUrl=q, WaitTimeSeconds=5, MessageAttributeNames=['All'])
    call(sns, 'tag_resource', ResourceArn=t, Tags=[{'Key': 'c', 'Value': 'd'}]); call(sns, 'list_tags_for_resource', ResourceArn=t); call(sns, 'untag_resource', ResourceArn=t, TagKeys=['a']); call(sns, 'list_tags_for_resource', ResourceArn=t)
    call(sns, 'unsubscribe', SubscriptionArn=sub); call(sns, 'delete_topic', TopicArn=t); call(sns, 'delete_topic', TopicArn=t)
    sqs.delete_queue(QueueUrl=q)

def buckets():
    b = dict(Bucket='second-b')
    call(s3, 'create_bucket', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'}, **b); call(s3, 'create_bucket', 'BucketAlreadyOwnedByYou', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'}, **b)
    call(s3, 'head_bucket', **b); call(s3, 'head_bucket', '404', Bucket='second-none'); call(s3, 'get_bucket_location', **b)
    call(s3, 'put_object', Key='a/1', Body=b'one', ContentType='text/plain', Metadata={'k': 'v'}, Tagging='t=1', **b)
    call(s3, 'get_object', Key='a/1', **b); call(s3, 'get_object', Key='a/1', Range='bytes=1-', **b); call(s3, 'get_object', 'NoSuchKey', Key='none', **b); call(s3, 'get_object', 'InvalidRange', Key='a/1', Range='bytes=9-', **b)
    call(s3, 'head_object', Key='a/1', **b); call(s3, 'head_object', '404', Key='none', **b)
    call(s3, 'get_object', '304', Key='a/1', IfNoneMatch='"f97c5d29941bfb1b2fdab0874906ab82"', **b); call(s3, 'get_object', 'PreconditionFailed', Key='a/1', IfMatch='"x"', **b)
    call(s3, 'copy_object', Key='a/2', CopySource='second-b/a/1', **b); call(s3, 'put_object', Key='b', Body=b'', **b)
    call(s3, 'list_objects_v2', Delimiter='/', **b); call(s3, 'list_objects_v2', Prefix='a/', MaxKeys=1, **b); call(s3, 'list_objects', **b)
    call(s3, 'put_object_tagging', Key='b', Tagging={'TagSet': [{'Key': 'x', 'Value': 'y'}]}, **b); call(s3, 'get_object_tagging', Key='b', **b); call(s3, 'delete_object_tagging', Key='b', **b)
    u = call(s3, 'create_multipart_upload', Key='m', **b)['UploadId']
    p = call(s3, 'upload_part', Key='m', UploadId=u, PartNumber=1, Body=b'part', **b)['ETag']
    call(s3, 'list_parts', Key='m', UploadId=u, **b); call(s3, 'list_multipart_uploads', **b)
    call(s3, 'complete_multipart_upload', Key='m', UploadId=u, MultipartUpload={'Parts': [{'ETag': p, 'PartNumber': 1}]}, **b)
    call(s3, 'abort_multipart_upload', 'NoSuchUpload', Key='m', UploadId='none', **b)
    call(s3, 'put_bucket_versioning', VersioningConfiguration={'Status': 'Enabled'}, **b); call(s3, 'get_bucket_versioning', **b)
    call(s3, 'put_bucket_tagging', Tagging={'TagSet': [{'Key': 'x', 'Value': 'y'}]}, **b); call(s3, 'get_bucket_tagging', **b); call(s3, 'delete_bucket_tagging', **b); call(s3, 'get_bucket_tagging', 'NoSuchTagSet', **b)
    call(s3, 'get_bucket_cors', 'NoSuchCORSConfiguration', **b); call(s3, 'get_bucket_policy', 'NoSuchBucketPolicy', **b); call(s3, 'get_bucket_lifecycle_configuration', 'NoSuchLifecycleConfiguration', **b)
    call(s3, 'delete_bucket', 'BucketNotEmpty', **b)
    call(s3, 'delete_objects', Delete={'Objects': [{'Key': k} for k in ['a/1', 'none']]}, **b); call(s3, 'list_object_versions', **b)
    for v in [x for l in ('Versions', 'DeleteMarkers') for x in s3.list_object_versions(**b).get(l, [])]: s3.delete_object(Key=v['Key'], VersionId=v['VersionId'], **b)
    call(s3, 'delete_bucket', **b); call(s3, 'list_objects_v2', 'NoSuchBucket', **b)

def parameters():
    call(ssm, 'put_parameter', Name='/a/b', Value='1', Type='String', Description='d', Tags=[{'Key': 'k', 'Value': 'v'}]); call(ssm, 'put_parameter', 'ParameterAlreadyExists', Name='/a/b', Value='2', Type='String')
    call(ssm, 'put_parameter', Name='/a/b', Value='2', Type='String', Overwrite=True); call(ssm, 'put_parameter', Name='/a/s', Value='secret', Type='SecureString'); call(ssm, 'put_parameter', Name='/a/c/l', Value='x,y', Type='StringList')
    call(ssm, 'put_parameter', 'ValidationException', Name='/a/none', Value='', Type='String')
    call(ssm, 'get_parameter', Name='/a/b'); call(ssm, 'get_parameter', Name='/a/b:1'); call(ssm, 'get_parameter', Name='/a/s', WithDecryption=True); call(ssm, 'get_parameter', 'ParameterNotFound', Name='none')
    call(ssm, 'get_parameters', Names=['/a/b', 'none']); call(ssm, 'get_parameters_by_path', Path='/a'); call(ssm, 'get_parameters_by_path', Path='/a', Recursive=True, WithDecryption=True)
    call(ssm, 'get_parameter_history', Name='/a/b'); call(ssm, 'label_parameter_version', Name='/a/b', ParameterVersion=1, Labels=['old']); call(ssm, 'get_parameter', Name='/a/b:old')
    call(ssm, 'describe_parameters', ParameterFilters=[{'Key': 'Name', 'Option': 'BeginsWith', 'Values': ['/a']}])
    call(ssm, 'add_tags_to_resource', ResourceType='Parameter', ResourceId='/a/b', Tags=[{'Key': 'm', 'Value': 'n'}]); call(ssm, 'list_tags_for_resource', ResourceType='Parameter', ResourceId='/a/b')
    call(ssm, 'remove_tags_from_resource', ResourceType='Parameter', ResourceId='/a/b', TagKeys=['k']); call(ssm, 'list_tags_for_resource', ResourceType='Parameter', ResourceId='/a/b')
    call(ssm, 'delete_parameters', Names=['/a/s', 'none']); call(ssm, 'delete_parameter', Name='/a/b'); call(ssm, 'delete_parameter', 'ParameterNotFound', Name='/a/b')

def secrets():
    call(sm, 'create_secret', Name='s', SecretString='one', Description='d', Tags=[{'Key': 'a', 'Value': 'b'}]); call(sm, 'create_secret', 'ResourceExistsException', Name='s', SecretString='x')
    call(sm, 'get_secret_value', SecretId='s'); call(sm, 'get_secret_value', 'ResourceNotFoundException', SecretId='none'); call(sm, 'put_secret_value', SecretId='s', SecretString='two')
    v = sm.list_secret_version_ids(SecretId='s')['Versions']; call(sm, 'list_secret_version_ids', SecretId='s')
    call(sm, 'get_secret_value', SecretId='s', VersionStage='AWSPREVIOUS')
    old, new = [next(x['VersionId'] for x in v if st in x['VersionStages']) for st in ('AWSPREVIOUS', 'AWSCURRENT')]
    call(sm, 'update_secret_version_stage', SecretId='s', VersionStage='AWSCURRENT', MoveToVersionId=old, RemoveFromVersionId=new); call(sm, 'get_secret_value', SecretId='s')
    call(sm, 'describe_secret', SecretId='s'); call(sm, 'update_secret', SecretId='s', Description='e', SecretString='three'); call(sm, 'list_secrets', Filters=[{'Key': 'name', 'Values': ['s']}])
    call(sm, 'batch_get_secret_value', SecretIdList=['s', 'none'])
    call(sm, 'tag_resource', SecretId='s', Tags=[{'Key': 'c', 'Value': 'd'}]); call(sm, 'untag_resource', SecretId='s', TagKeys=['a']); call(sm, 'describe_secret', SecretId='s')
    call(sm, 'put_resource_policy', SecretId='s', ResourcePolicy='{"Version":"2012-10-17","Statement":[]}'); call(sm, 'get_resource_policy', SecretId='s'); call(sm, 'delete_resource_policy', SecretId='s')
    call(sm, 'get_random_password', PasswordLength=20); call(sm, 'delete_secret', SecretId='s', RecoveryWindowInDays=7); call(sm, 'get_secret_value', 'InvalidRequestException', SecretId='s'); call(sm, 'restore_secret', SecretId='s')
    call(sm, 'delete_secret', SecretId='s', ForceDeleteWithoutRecovery=True); call(sm, 'describe_secret', 'ResourceNotFoundException', SecretId='s')

def events():
    call(ev, 'create_event_bus', Name='bus'); call(ev, 'create_event_bus', 'ResourceAlreadyExistsException', Name='bus'); call(ev, 'describe_event_bus', Name='bus'); call(ev, 'describe_event_bus', 'ResourceNotFoundException', Name='none'); call(ev, 'list_event_buses')
    q = sqs.create_queue(QueueName='ruled')['QueueUrl']
    arn = sqs.get_queue_attributes(QueueUrl=q, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
    rule = call(ev, 'put_rule', Name='r', EventBusName='bus', EventPattern='{"source":["shop"]}', Description='d', Tags=[{'Key': 'a', 'Value': 'b'}])['RuleArn']
    call(ev, 'put_rule', 'InvalidEventPatternException', Name='r2', EventBusName='bus', EventPattern='{"source":"shop"}'); call(ev, 'put_rule', 'ValidationException', Name='r3', EventBusName='bus')
    call(ev, 'put_rule', Name='every', ScheduleExpression='rate(1 day)', State='DISABLED')
    call(ev, 'put_targets', Rule='r', EventBusName='bus', Targets=[{'Id': '1', 'Arn': arn, 'InputPath': '$.detail'}]); call(ev, 'put_targets', 'ResourceNotFoundException', Rule='none', EventBusName='bus', Targets=[{'Id': '1', 'Arn': arn}])
    call(ev, 'describe_rule', Name='r', EventBusName='bus'); call(ev, 'describe_rule', 'ResourceNotFoundException', Name='none', EventBusName='bus'); call(ev, 'list_rules', EventBusName='bus'); call(ev, 'list_rules', NamePrefix='every')
    call(ev, 'list_targets_by_rule', Rule='r', EventBusName='bus'); call(ev, 'list_rule_names_by_target', TargetArn=arn, EventBusName='bus')
    call(ev, 'put_events', Entries=[{'Source': 'shop', 'DetailType': 'order', 'Detail': '{"n": 1}', 'EventBusName': 'bus'}, {'Source': 'other', 'DetailType': 'order', 'Detail': '{}', 'EventBusName': 'bus'}, {'Source': 'shop', 'DetailType': 'order', 'Detail': 'no', 'EventBusName': 'bus'}])
    call(sqs, 'receive_message', QueueUrl=q, WaitTimeSeconds=10)
    call(ev, 'disable_rule', Name='r', EventBusName='bus'); call(ev, 'describe_rule', Name='r', EventBusName='bus'); call(ev, 'enable_rule', Name='r', EventBusName='bus')
    call(ev, 'test_event_pattern', EventPattern='{"source":[{"prefix":"sh"}]}', Event='{"id":"1","source":"shop","detail-type":"t","account":"1","time":"2020-01-01T00:00:00Z","region":"x","resources":[],"detail":{}}')
    call(ev, 'tag_resource', ResourceARN=rule, Tags=[{'Key': 'c', 'Value': 'd'}]); call(ev, 'list_tags_for_resource', ResourceARN=rule); call(ev, 'untag_resource', ResourceARN=rule, TagKeys=['a']); call(ev, 'list_tags_for_resource', ResourceARN=rule)
    bus = ev.describe_event_bus(Name='bus')['Arn']
    arch = call(ev, 'create_archive', ArchiveName='ar', EventSourceArn=bus, EventPattern='{"source":["shop"]}', RetentionDays=3)['ArchiveArn']
    call(ev, 'create_archive', 'ResourceAlreadyExistsException', ArchiveName='ar', EventSourceArn=bus); call(ev, 'describe_archive', ArchiveName='ar'); call(ev, 'update_archive', ArchiveName='ar', Description='e'); call(ev, 'list_archives')
    now = datetime.datetime.now(datetime.timezone.utc)
    call(ev, 'start_replay', ReplayName='re', EventSourceArn=arch, EventStartTime=now - datetime.timedelta(hours=1), EventEndTime=now, Destination={'Arn': bus})
    call(ev, 'list_replays', NamePrefix='none'); call(ev, 'cancel_replay', 'ResourceNotFoundException', ReplayName='none')
    for _ in range(600):
        if ev.describe_replay(ReplayName='re')['State'] == 'COMPLETED': break
        time.sleep(0.1)
    call(ev, 'describe_replay', ReplayName='re'); call(ev, 'describe_replay', 'ResourceNotFoundException', ReplayName='none')
    call(ev, 'delete_archive', ArchiveName='ar'); call(ev, 'delete_rule', 'ValidationException', Name='r', EventBusName='bus')
    call(ev, 'remove_targets', Rule='r', EventBusName='bus', Ids=['1']); call(ev, 'delete_rule', Name='r', EventBusName='bus'); call(ev, 'delete_rule', Name='every'); call(ev, 'delete_event_bus', Name='bus'); sqs.delete_queue(QueueUrl=q)

def schedules():
    q = sqs.create_queue(QueueName='timed')['QueueUrl']
    target = dict(Arn=sqs.get_queue_attributes(QueueUrl=q, AttributeNames=['QueueArn'])['Attributes']['QueueArn'], RoleArn='arn:aws:iam::123456789012:role/r', Input='{}')
    off = dict(FlexibleTimeWindow={'Mode': 'OFF'}, Target=target)
    g = call(sch, 'create_schedule_group', Name='g', Tags=[{'Key': 'a', 'Value': 'b'}])['ScheduleGroupArn']
    call(sch, 'create_schedule_group', 'ConflictException', Name='g'); call(sch, 'get_schedule_group', Name='g'); call(sch, 'get_schedule_group', 'ResourceNotFoundException', Name='none'); call(sch, 'list_schedule_groups', NamePrefix='g')
    call(sch, 'create_schedule', Name='s', GroupName='g', ScheduleExpression='rate(1 hours)', Description='d', **off); call(sch, 'create_schedule', 'ConflictException', Name='s', GroupName='g', ScheduleExpression='rate(1 hours)', **off)
    call(sch, 'create_schedule', 'ValidationException', Name='s2', GroupName='g', ScheduleExpression='often', **off)
    call(sch, 'get_schedule', Name='s', GroupName='g'); call(sch, 'get_schedule', 'ResourceNotFoundException', Name='none', GroupName='g')
    call(sch, 'update_schedule', Name='s', GroupName='g', ScheduleExpression='cron(0 12 * * ? *)', ScheduleExpressionTimezone='Europe/Berlin', State='DISABLED', **off); call(sch, 'get_schedule', Name='s', GroupName='g'); call(sch, 'list_schedules', GroupName='g')
    call(sch, 'tag_resource', ResourceArn=g, Tags=[{'Key': 'c', 'Value': 'd'}]); call(sch, 'untag_resource', ResourceArn=g, TagKeys=['a']); call(sch, 'list_tags_for_resource', ResourceArn=g)
    call(sch, 'delete_schedule', Name='s', GroupName='g'); call(sch, 'delete_schedule', 'ResourceNotFoundException', Name='s', GroupName='g'); call(sch, 'delete_schedule_group', Name='g'); sqs.delete_queue(QueueUrl=q)

for f in [dynamodb, queues, topics, buckets, parameters, secrets, events, schedules]:
    try: f()
    except Exception as e: print(f.__name__ + '\t' + json.dumps({'broken': '%s: %s at line %d' % (type(e).__name__, str(e)[:200], e.__traceback__.tb_next.tb_lineno)}))
