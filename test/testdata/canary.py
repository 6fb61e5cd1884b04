# Leaves what can be told in every service, or takes it back: canary.py URL ACCESS-KEY SECRET put|take
import boto3, datetime, json, sys
url, key, secret, what = sys.argv[1:5]
c = lambda n: boto3.client(n, endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret)
sqs, sns, s3, ddb, ssm, sm, kin, ev, sch = (c(n) for n in ('sqs', 'sns', 's3', 'dynamodb', 'ssm', 'secretsmanager', 'kinesis', 'events', 'scheduler'))
if what == 'put':
    u = sqs.create_queue(QueueName='canary-queue-name')['QueueUrl']
    sqs.send_message(QueueUrl=u, MessageBody='canary-message-body', MessageAttributes={'k': {'DataType': 'String', 'StringValue': 'canary-message-attribute'}})
    arn = sqs.get_queue_attributes(QueueUrl=u, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
    t = sns.create_topic(Name='canary-topic-name')['TopicArn']
    sns.subscribe(TopicArn=t, Protocol='sqs', Endpoint=arn)
    sns.publish(TopicArn=t, Subject='canary-publication-subject', Message='canary-publication-message')
    kin.create_stream(StreamName='canary-stream-name', ShardCount=1)
    kin.put_record(StreamName='canary-stream-name', PartitionKey='canary-partition-key', Data=b'canary-record-data')
    r = ev.put_events(Entries=[{'Source': 'canary.event.source', 'DetailType': 'canary-event-type', 'Detail': json.dumps({'x': 'canary-event-detail'})}])
    assert r['FailedEntryCount'] == 0, r
    ddb.create_table(TableName='canary-table-name', KeySchema=[{'AttributeName': 'h', 'KeyType': 'HASH'}], BillingMode='PAY_PER_REQUEST',
                     AttributeDefinitions=[{'AttributeName': 'h', 'AttributeType': 'S'}], StreamSpecification={'StreamEnabled': True, 'StreamViewType': 'NEW_AND_OLD_IMAGES'})
    ddb.put_item(TableName='canary-table-name', Item={'h': {'S': 'canary-item-key'}, 'canary-attribute-name': {'S': 'canary-item-value'}})
    ddb.put_item(TableName='canary-table-name', Item={'h': {'S': 'large'}, 'x': {'S': 'canary-item-large ' * 15000}})
    s3.create_bucket(Bucket='canary-bucket-name', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})
    s3.put_object(Bucket='canary-bucket-name', Key='canary-object-key', Body=b'canary-object-small', Metadata={'k': 'canary-object-metadata'})
    s3.put_object(Bucket='canary-bucket-name', Key='large', Body=b'canary-object-large ' * 10000)
    m = s3.create_multipart_upload(Bucket='canary-bucket-name', Key='canary-upload-key')['UploadId']
    s3.upload_part(Bucket='canary-bucket-name', Key='canary-upload-key', UploadId=m, PartNumber=1, Body=b'canary-object-part ' * 10000)
    ssm.put_parameter(Name='/canary-parameter-name', Value='canary-parameter-value', Type='String')
    ssm.put_parameter(Name='/secure', Value='canary-parameter-secure', Type='SecureString')
    sm.create_secret(Name='canary-secret-name', SecretString='canary-secret-value')
    sch.create_schedule(Name='canary-schedule-name', ScheduleExpression='rate(300 days)', FlexibleTimeWindow={'Mode': 'OFF'},
                        Target={'Arn': arn, 'RoleArn': 'arn:aws:iam::000000000000:role/r', 'Input': 'canary-schedule-input'})
else:
    u = sqs.get_queue_url(QueueName='canary-queue-name')['QueueUrl']
    got = ''
    for _ in range(10):
        got += json.dumps(sqs.receive_message(QueueUrl=u, WaitTimeSeconds=2, MaxNumberOfMessages=10, MessageAttributeNames=['All'], VisibilityTimeout=600).get('Messages', []))
        if 'canary-message-body' in got and 'canary-publication-message' in got: break
    assert 'canary-message-attribute' in got and 'canary-publication-message' in got, got
    shard = kin.get_shard_iterator(StreamName='canary-stream-name', ShardId=kin.list_shards(StreamName='canary-stream-name')['Shards'][0]['ShardId'], ShardIteratorType='TRIM_HORIZON')
    assert kin.get_records(ShardIterator=shard['ShardIterator'])['Records'][0]['Data'] == b'canary-record-data'
    assert ddb.get_item(TableName='canary-table-name', Key={'h': {'S': 'canary-item-key'}})['Item']['canary-attribute-name']['S'] == 'canary-item-value'
    assert len(ddb.scan(TableName='canary-table-name')['Items']) == 2
    o = s3.get_object(Bucket='canary-bucket-name', Key='canary-object-key')
    assert o['Body'].read() == b'canary-object-small' and o['Metadata'] == {'k': 'canary-object-metadata'}
    assert s3.get_object(Bucket='canary-bucket-name', Key='large')['Body'].read() == b'canary-object-large ' * 10000
    assert s3.get_object(Bucket='canary-bucket-name', Key='large', Range='bytes=65530-65549')['Body'].read() == (b'canary-object-large ' * 10000)[65530:65550]
    m = s3.list_multipart_uploads(Bucket='canary-bucket-name')['Uploads'][0]
    p = s3.list_parts(Bucket='canary-bucket-name', Key=m['Key'], UploadId=m['UploadId'])['Parts'][0]
    s3.complete_multipart_upload(Bucket='canary-bucket-name', Key=m['Key'], UploadId=m['UploadId'], MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': p['ETag']}]})
    assert s3.get_object(Bucket='canary-bucket-name', Key=m['Key'])['Body'].read() == b'canary-object-part ' * 10000
    assert ssm.get_parameter(Name='/canary-parameter-name')['Parameter']['Value'] == 'canary-parameter-value'
    assert ssm.get_parameter(Name='/secure', WithDecryption=True)['Parameter']['Value'] == 'canary-parameter-secure'
    assert sm.get_secret_value(SecretId='canary-secret-name')['SecretString'] == 'canary-secret-value'
    assert sch.get_schedule(Name='canary-schedule-name')['Target']['Input'] == 'canary-schedule-input'
print('all canaries')
